"""Metric losses from class labels: drop-in pytorch-metric-learning losses, one small file each."""

from __future__ import annotations

from typing import Protocol

from api_schemas.config import Parameter
from training.catalogue import catalogue_lines
from training.losses.circle import Circle
from training.losses.combined import CombinedLoss, Weight
from training.losses.library import Loss
from training.losses.multi_similarity import MultiSimilarity
from training.losses.proxy_anchor import ProxyAnchor
from training.losses.threshold_consistent_margin import ThresholdConsistentMargin
from training.losses.triplet import Triplet
from training.registry import built, chosen

__all__ = ["LOSSES", "CombinedLoss", "Loss", "Weight", "build", "catalogue"]

LOSSES: dict[str, type[Loss]] = {
    "triplet": Triplet,
    "circle": Circle,
    "multi_similarity": MultiSimilarity,
    "proxy_anchor": ProxyAnchor,
    "threshold_consistent_margin": ThresholdConsistentMargin,
}
"""Name in the configuration to class; each runs as ``loss(embeddings, labels)`` with its defaults."""


class Spec(Protocol):
    """A name and its parameters, as the configuration holds them."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What was given besides the name."""
        ...


def build(spec: Spec, *, num_classes: int, embedding_dim: int) -> Loss:
    """The loss of that name with those parameters; raises ConfigError naming the nearest valid one."""
    make = chosen(LOSSES, spec.name, "loss.name")
    where = f"loss ({spec.name})"
    return built(make, spec.parameters, where, num_classes=num_classes, embedding_dim=embedding_dim)


def catalogue() -> list[str]:
    """One line per loss: name, paper, parameters with their defaults."""
    return catalogue_lines({name: (loss, loss.paper) for name, loss in LOSSES.items()})
