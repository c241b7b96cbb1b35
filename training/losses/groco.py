"""Group ordering constraints."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms
from training.losses.parts.loss_batch import LossBatch


class GroCo(PairLoss):
    """All of an anchor's positives must come before its hardest negatives in a sorted list.

    Formula: the anchor's cosines, its hardest negatives ascending and then its positives ascending, go
    through a sorting network that exchanges neighbours softly: ``1/2 + atan(steepness (b - a)) / pi`` is how
    much of them stays (Cauchy); ``P_rc`` is how much of entry c ends in place r. ``mean over anchors of
    [BCE(sum_{c positive} P_rc, 1 if r is one of the last places) + BCE(sum_{c negative} P_rc, 1 if r is one
    of the first)] / 2``, the mean over the places r. The order within a group does not count.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        negatives: 10 of each anchor, steepness: 1, the authors'.

    Related losses: fast_ap and soft_top_k, which also ask for places in a list; triplet, where each positive
        and negative is compared alone.

    Reference implementation: diffsort's odd-even network, the same exchanges; there is no gradient through
    the other end of a pair, there as here. Negatives are of the anchor's own view there.
    """

    name = "groco"
    paper = "Shvetsova et al., Learning by Sorting, ICCV 2023, arXiv 2301.02009"
    when = "Two views without labels where neighbours count: k-NN and retrieval."

    def __init__(self, negatives: int = 10, steepness: float = 1.0) -> None:
        super().__init__(distance=CosineSimilarity())
        if negatives < 1 or steepness <= 0:
            raise ValueError("negatives must be at least 1, steepness above 0")
        self.negatives, self.steepness = negatives, steepness

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        items = F.normalize(batch.embeddings, dim=1)
        references = F.normalize(batch.references, dim=1).detach()
        return self.compute_pair_terms(items @ references.T, *batch.build_pair_masks())

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        matrix, positive, negative = matrix[kept], positive[kept], negative[kept]
        n_positive, n_negative = positive.sum(1), negative.sum(1).clamp(max=self.negatives)
        losses = matrix.new_zeros(len(matrix))
        for p, n in torch.unique(torch.stack([n_positive, n_negative], 1), dim=0).tolist():
            rows = (n_positive == p) & (n_negative == n)
            hardest = matrix[rows].masked_fill(~negative[rows], -torch.inf).topk(n, dim=1).values.flip(1)
            wanted = matrix[rows].masked_fill(~positive[rows], -torch.inf).topk(p, dim=1).values.flip(1)
            losses = losses.index_put((rows,), self._compute_order(torch.cat([hardest, wanted], 1), n))
        return build_element_terms(losses, kept)

    def _compute_order(self, values: Tensor, n: int) -> Tensor:
        """Loss of each row of values, whose first n are the negatives, float [rows]."""
        moved = compute_soft_permutation(values, self.steepness)
        of_positives = moved[:, :, n:].sum(2).clamp(0, 1)
        of_negatives = moved[:, :, :n].sum(2).clamp(0, 1)
        last = (torch.arange(values.shape[1], device=values.device) >= n).to(values).expand_as(values)
        both = F.binary_cross_entropy(of_positives, last, reduction="none")
        both = both + F.binary_cross_entropy(of_negatives, 1 - last, reduction="none")
        return both.mean(1) / 2


def compute_soft_permutation(values: Tensor, steepness: float) -> Tensor:
    """How much of each entry ends in each place when rows are sorted ascending: float [n, k] to [n, k, k].

    An odd-even network (Petersen et al., Differentiable Sorting Networks, ICML 2021, arXiv 2105.04019): k
    layers of exchanges of neighbours.
    """
    n, k = values.shape
    moved = torch.eye(k, dtype=values.dtype, device=values.device).expand(n, k, k)
    for layer in range(k):
        left = torch.arange(layer % 2, k - 1, 2, device=values.device)
        if not len(left):
            continue
        order = torch.arange(k, device=values.device)
        partner = order.index_put((left,), left + 1).index_put((left + 1,), left)
        a, b = values[:, left], values[:, left + 1]
        stays = 0.5 + torch.atan(steepness * (b - a)) / math.pi
        keep = torch.ones_like(values).index_copy(1, left, stays).index_copy(1, left + 1, stays)
        values = keep * values + (1 - keep) * values[:, partner]
        moved = keep[:, :, None] * moved + (1 - keep)[:, :, None] * moved[:, partner]
    return moved
