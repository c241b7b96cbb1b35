"""Unified negative pair generation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.margin_softmax import Margin, apply_margin, resolve_margin
from training.losses.parts.pair_masks import compute_masked_logsumexp


class UNPG(ClassVectorLoss):
    """A margin softmax whose denominator also holds the batch's own negative pairs.

    Formula: ``mean_i -log(e^{scale z_iy} / (sum_c e^{scale z_ic} + sum_{t in S} e^{scale t}))``; z are
    cosines to class vectors with the base's margin, S the cosines of all pairs of different classes in the
    batch, the same for every row, within ``[Q1 - whisker IQR, Q3 + whisker IQR]``: too easy and too hard ones
    (likely wrong labels) are left out.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        base: cosface (arcface, none). margin: 0.5 for both (the base's usual one for null), scale: 64,
            whisker: 1.5, the authors'; null keeps every pair.

    Related losses: CosFace and ArcFace without S.

    Reference implementation: quartiles are the sorted values at int(l/4) and int(3l/4), as here; its argument
    of the filter is called "wisk", and its MagFace head is not wired.
    """

    name = "unpg"
    paper = "Jung et al., UNPG, BMVC 2022, arXiv 2203.11593"
    when = "Face-like data: softmax training whose negatives are too easy."
    vectors = "weight"

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        base: Margin = "cosface",
        margin: float | None = 0.5,
        scale: float = 64.0,
        whisker: float | None = 1.5,
    ) -> None:
        super().__init__(num_classes)
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.base, self.margin = base, resolve_margin(base, margin)
        self.scale, self.whisker = scale, whisker

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = compute_cosines(embeddings, self.weight)
        logits = self.scale * apply_margin(cosines, labels, self.base, self.margin)
        pairs = self.scale * drop_outliers(compute_negative_cosines(embeddings, labels), self.whisker)
        return compute_cross_entropy_with_pairs(logits, labels, pairs)


def compute_negative_cosines(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Cosines of all unordered pairs of different classes, float [l]."""
    items = F.normalize(embeddings, dim=1)
    different = torch.triu(labels[:, None] != labels[None, :], diagonal=1)
    return (items @ items.T)[different]


def drop_outliers(values: Tensor, whisker: float | None) -> Tensor:
    """The values that are no outliers of a box-and-whisker plot; all when ``whisker`` is None."""
    if whisker is None or not len(values):
        return values
    ordered = values.detach().sort().values
    low, high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    reach = whisker * (high - low)
    return values[(values >= low - reach) & (values <= high + reach)]


def compute_cross_entropy_with_pairs(logits: Tensor, labels: Tensor, pairs: Tensor) -> Tensor:
    """Cross-entropy [n] of logits [n, c] with the further logits [l] in every row's denominator.

    The further logits are summed once, not once per row: n + l exponentials in place of n * l.
    """
    keep = torch.ones_like(pairs, dtype=torch.bool)
    extra = compute_masked_logsumexp(pairs, keep, dim=0) if len(pairs) else logits.new_tensor(-torch.inf)
    total = torch.logaddexp(torch.logsumexp(logits, dim=1), extra)
    return total - logits.gather(1, labels[:, None])[:, 0]
