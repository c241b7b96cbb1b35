"""The batch that a loss is computed from, as the library hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from training.losses.parts.pair_masks import build_pair_masks, compute_item_weights

Indices: TypeAlias = tuple[Tensor, ...]
"""Row numbers: (anchor, positive, negative) or (anchor, positive, anchor, negative), as miners give them."""


@dataclass(frozen=True)
class LossBatch:
    """What a loss is computed from.

    Attributes:
        embeddings: float [n, d]. labels: int [n].
        indices: the pairs or triplets that a miner selected; None for all.
        references: float [m, d], the other end of the pairs; the embeddings unless some were given.
        reference_labels: int [m].
    """

    embeddings: Tensor
    labels: Tensor
    indices: Indices | None
    references: Tensor
    reference_labels: Tensor

    @property
    def has_references(self) -> bool:
        """Whether the references are others than the embeddings."""
        return self.references is not self.embeddings

    def build_pair_masks(self) -> tuple[Tensor, Tensor]:
        """Positive and negative pairs of items (rows) and references (columns), two bool [n, m]."""
        return build_pair_masks(self.labels, self.reference_labels, self.indices, not self.has_references)

    def compute_item_weights(self) -> Tensor:
        """Float [n]: how often the miner selected each item, by its largest count; ones without a miner."""
        return compute_item_weights(len(self.labels), self.indices, self.embeddings)
