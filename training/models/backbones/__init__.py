"""Networks from input to features: name to class. Each has ``features``, the shape of what it returns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from training.models.backbones.conv4 import Conv4
from training.models.backbones.hub import HUBS, HfImage, HfText, Timm
from training.models.backbones.mlp import Identity, Linear, Mlp
from training.models.backbones.ngram import Ngram
from training.models.backbones.resnet import Resnet
from training.models.backbones.types import Backbone
from training.registry import chosen

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "conv4": Conv4,
    "identity": Identity,
    "linear": Linear,
    "mlp": Mlp,
    "ngram": Ngram,
    "resnet": Resnet,
}


def backbone_named(name: str, data_kind: str) -> Callable[..., Backbone]:
    """What builds a backbone for inputs of that kind; raises ConfigError naming the nearest name.

    Args:
        data_kind: ``image``, ``table``, ``text``, ``tokens`` or ``vector``.
    """
    if name.startswith("timm:"):
        return partial(Timm, source=name.removeprefix("timm:"))
    if name.startswith("hf:"):
        return partial(HfImage if data_kind == "image" else HfText, source=name.removeprefix("hf:"))
    return chosen(BACKBONES, name, "model.backbone")


__all__ = ["BACKBONES", "HUBS", "Backbone", "backbone_named"]
