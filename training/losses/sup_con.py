"""Supervised contrastive loss, and the sum that SBCL shares with it."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms
from training.losses.parts.pair_masks import compute_masked_logsumexp


class SupCon(PairLoss):
    """Each positive must stand out among all other items of the batch.

    Formula: ``mean_i -1/|P(i)| sum_{p in P(i)} log(e^{s_ip / t} / sum_{a != i} e^{s_ia / t})`` over items
    that have a positive, t the temperature.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.1, the paper's.

    Related losses: SBCL adds subclasses; NT-Xent sums over single positives.

    Reference implementation: the library's values, but its mean leaves out losses of exactly 0, and it is 0
    for a batch without negatives; here a batch of one class is spread evenly, as the formula says.
    """

    name = "sup_con"
    paper = "Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362"
    when = "Large batches with several positives per item."

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(distance=CosineSimilarity())
        self.temperature = temperature

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        losses = compute_contrast(matrix / self.temperature, positive, positive | negative)
        kept = positive.any(1)
        return build_element_terms(losses[kept], kept) if kept.any() else self.zero_losses()


def compute_contrast(logits: Tensor, positive: Tensor, others: Tensor) -> Tensor:
    """``-mean over positives of (logit - log sum over others of exp)`` per row [n]; 0 without positives.

    Args:
        logits: float [n, m]. positive, others: bool [n, m]; ``others`` make the denominator.
    """
    total = compute_masked_logsumexp(logits, others, dim=1)
    count = positive.sum(1)
    mean = torch.where(positive, logits, 0).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, total - mean, 0)
