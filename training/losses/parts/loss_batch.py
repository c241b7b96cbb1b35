"""Inputs of a loss: the batch as the library hands it over, or the pairs of a mixup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from training.losses.parts.pair_masks import build_pair_masks

Indices: TypeAlias = tuple[Tensor, ...]
"""Row numbers: (anchor, positive, negative) or (anchor, positive, anchor, negative), as miners give them."""


@dataclass(frozen=True)
class LossBatch:
    """Inputs of a loss.

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
        """Float [n]: how often the miner selected each item, by its largest count; ones without a miner.

        Losses over class vectors have no pairs to restrict; this is how the library lets miners act on them.
        """
        n, like = len(self.labels), self.embeddings
        if self.indices is None or all(len(rows) == 0 for rows in self.indices):
            return torch.ones(n, dtype=like.dtype, device=like.device)
        counts = torch.bincount(torch.cat([rows.to(like.device) for rows in self.indices]), minlength=n)
        return counts.to(like.dtype) / counts.max()


Roles = Literal["items", "class_anchors", "class_references"]
"""Anchors and what is mixed for them: items, items; class vectors, items; items, class vectors."""


@dataclass(frozen=True)
class MixedPairs:
    """Pairs with fractional labels: anchors (rows) against mixed items v (columns), padded.

    Metrix (Venkataramanan et al., ICLR 2022, arXiv 2106.04990): for an anchor a, ``l(a) = tau(sigma+(sum y
    rho+(s)) + sigma-(sum (1 - y) rho-(s)))`` with y in {0, 1} is the clean loss; with y in [0, 1] over mixed
    items v it is the mixed loss.

    Attributes:
        similarity: float [a, v], cosine of anchor and v.
        target: float [a, v], the fraction of v that is of the anchor's class.
        valid: bool [a, v]; the rest is padding.
        to_positive: float [a, v], cosine of the anchor to the positive that went into v.
        to_negative: float [a, v], cosine of the anchor to the negative that went into v.
    """

    similarity: Tensor
    target: Tensor
    valid: Tensor
    to_positive: Tensor
    to_negative: Tensor
