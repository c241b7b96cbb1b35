"""Mixup of items of different classes, composed with a loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from api_schemas.yaml_config import NamedPart
from training.losses import Loss
from training.objective.mixup.metrix import Metrix
from training.registry import build_from_spec

__all__ = ["MIXUPS", "Metrix", "build_mixup"]

MIXUPS: dict[str, Callable[..., nn.Module]] = {"metrix": Metrix}
"""Name in the configuration to class; each takes the loss it mixes."""


def build_mixup(spec: NamedPart, loss: Loss) -> nn.Module:
    """The loss with mixup; a loss without a generalised form is a ConfigError, like a wrong parameter."""
    return build_from_spec(MIXUPS, spec, "mixup", loss=loss)
