"""Backbones, networks from prepared input to features: a new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from common.errors import ConfigError
from encoder.inputs.preprocessing import Preprocessing
from training.models.backbones.backbone import Backbone
from training.models.backbones.conv4 import Conv4
from training.models.backbones.hub import HF, TIMM, HfImage, HfText, Timm
from training.models.backbones.mlp import Identity, Linear, Mlp
from training.models.backbones.mobilenet_v2 import MobileNetV2
from training.models.backbones.ngram import Ngram
from training.models.backbones.onnx_network import ONNX, OnnxNetwork
from training.models.backbones.resnet import Resnet
from training.models.backbones.static import STATIC, Static
from training.models.backbones.tdnn import Tdnn
from training.models.backbones.torch_module import TORCH, TorchModule
from training.registry import select_entry

BACKBONES: dict[str, type[Backbone]] = {
    "conv4": Conv4,
    "identity": Identity,
    "linear": Linear,
    "mlp": Mlp,
    "mobilenet_v2": MobileNetV2,
    "ngram": Ngram,
    "resnet": Resnet,
    "tdnn": Tdnn,
}
PREFIXED_BACKBONES: dict[str, tuple[type[Backbone], ...]] = {
    TIMM: (Timm,),
    HF: (HfImage, HfText),
    STATIC: (Static,),
    ONNX: (OnnxNetwork,),
    TORCH: (TorchModule,),
}
"""By the prefix of their names, before where they come from; the class is the first that takes the inputs."""


def find_prefix(name: str) -> str | None:
    """What the name of a network that was made elsewhere begins with; None for those made here."""
    return next((prefix for prefix in PREFIXED_BACKBONES if name.startswith(prefix)), None)


def select_backbone(name: str, preprocessing: Preprocessing) -> Callable[..., Backbone]:
    """The class of a backbone for prepared inputs, to be called with its parameters.

    Raises:
        ConfigError: a name that does not exist (names the nearest), or a backbone that does not take such
            inputs (names those that do).
    """
    prefix = find_prefix(name)
    if prefix is None:
        select_entry(BACKBONES, name, "model.backbone")
    for backbone in PREFIXED_BACKBONES[prefix] if prefix else (BACKBONES[name],):
        if preprocessing.layout in backbone.layouts:
            return partial(backbone, source=name.removeprefix(prefix)) if prefix else backbone
    fitting = [name for name, backbone in BACKBONES.items() if preprocessing.layout in backbone.layouts]
    fitting += [
        f"{prefix}NAME"
        for prefix, classes in PREFIXED_BACKBONES.items()
        if any(preprocessing.layout in backbone.layouts for backbone in classes)
    ]
    raise ConfigError(
        f"model.backbone: '{name}' does not take {preprocessing.rule.kind} inputs: "
        f"choose {' or '.join(fitting)}."
    )
