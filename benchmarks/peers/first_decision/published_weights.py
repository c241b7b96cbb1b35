"""MobileNetV2 with the weights that a user would have torchvision download: not counted as user code."""

import os

import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2


def load_mobilenet():
    """The network without its classifier, from a file that has its authors' names for layers."""
    saved = load_file(f"{os.environ['LIMEN_DATASETS']}/encoders/mobilenet_v2_imagenet.safetensors")
    network = mobilenet_v2()
    network.classifier = torch.nn.Identity()
    own = _list_layers(network.state_dict())
    renamed = dict(zip([layer for layer in _list_layers(saved) if layer.startswith("features")], own))
    weights = {}
    for name, each in saved.items():
        layer, _, kind = name.rpartition(".")
        if layer in renamed:
            weights[f"{renamed[layer]}.{kind}"] = each
    network.load_state_dict(weights)
    return network


def _list_layers(names):
    """The layers in the order of the network."""
    layers = {name.rpartition(".")[0] for name in names}
    return sorted(layers, key=lambda name: [int(x) if x.isdigit() else x for x in name.split(".")])
