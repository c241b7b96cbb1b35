"""Networks from input to features: name to class. Each has ``features``, the shape of what it returns."""

from __future__ import annotations

from collections.abc import Callable

from training.backbones.conv4 import Conv4
from training.backbones.ngram import Ngram
from training.backbones.plain import Identity, Linear, Mlp
from training.backbones.resnet import Resnet
from training.backbones.types import Backbone

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "conv4": Conv4,
    "identity": Identity,
    "linear": Linear,
    "mlp": Mlp,
    "ngram": Ngram,
    "resnet": Resnet,
}

__all__ = ["BACKBONES", "Backbone"]
