"""Cosine contrastive loss of SimpleX."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms


class CCL(PairLoss):
    """Positives towards cosine 1, negatives below a margin, the easy ones left alone but counted.

    Formula: ``mean_a mean_p [1 - s_ap]_+ + w mean_n [s_an - m]_+`` over the anchors that have a positive and
    a negative.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.5. weight: 10, w; null sums the negatives instead, as if w were their number.

    Related losses: contrastive on distances takes the mean over the pairs that violate the margin alone, so
        that few of them push as hard as many; here w / |N| of each.

    Reference implementation: the authors' class sums the negatives without a weight; RecBole's always takes w
    times their mean. The negatives there are drawn from all items, 1,000 of them; here those of the batch.
    """

    name = "ccl"
    paper = "Mao et al., SimpleX, CIKM 2021, arXiv 2109.12613"
    when = "Retrieval with very many negatives, most of them easy: raise the weight with their number."

    def __init__(self, margin: float = 0.5, weight: float | None = 10.0) -> None:
        super().__init__(distance=CosineSimilarity())
        if not -1 <= margin < 1 or (weight is not None and weight <= 0):
            raise ValueError("margin must be from -1 to below 1, weight above 0 or null")
        self.margin, self.weight = margin, weight

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        pull = torch.where(positive, (1 - matrix).clamp(min=0), 0).sum(1) / positive.sum(1).clamp(min=1)
        push = torch.where(negative, (matrix - self.margin).clamp(min=0), 0).sum(1)
        if self.weight is not None:
            push = self.weight * push / negative.sum(1).clamp(min=1)
        return build_element_terms((pull + push)[kept], kept)
