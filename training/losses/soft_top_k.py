"""Soft top-k loss of DEXML."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms

ROUNDS = 60  # of bisection: the threshold is then exact in float64


class SoftTopK(PairLoss):
    """Every positive must be among the k first of the anchor's list.

    Formula: ``mean_a 1/|P(a)| sum_p -log v_ap``, ``v_aj = sigmoid(alpha (s_aj / t + c_a))``, c_a the number
    for which ``sum_j v_aj = k``, over the anchors that have positives and negatives.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.05, alpha: 2, the authors'. k: null, as many as the anchor has positives (5 there, for
            up to 5 positives of a query).

    Related losses: decoupled_softmax, which asks for the first place; fast_ap, which weighs all of them.

    Reference implementation: a backward pass of its own, ``dv/dx = diag(u) - u u^T / sum(u)`` with ``u =
    alpha v (1 - v)``; here the slope of c, ``dc/dx_j = -u_j / sum(u)``, gives the same.
    """

    name = "soft_top_k"
    paper = "Gupta et al., Dual-Encoders for Extreme Multi-Label Classification, ICLR 2024, arXiv 2310.10636"
    when = "Lists of a fixed length are what people see: recall within the first k."

    def __init__(self, temperature: float = 0.05, alpha: float = 2.0, k: int | None = None) -> None:
        super().__init__(distance=CosineSimilarity())
        if temperature <= 0 or alpha <= 0 or (k is not None and k < 1):
            raise ValueError("temperature and alpha must be above 0, k at least 1 or null")
        self.temperature, self.alpha, self.k = temperature, alpha, k

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        scaled = self.alpha * matrix[kept] / self.temperature
        positive, among = positive[kept], (positive | negative)[kept]
        wanted = positive.sum(1) if self.k is None else torch.full_like(positive.sum(1), self.k)
        wanted = torch.minimum(wanted, among.sum(1) - 1)
        losses = -F.logsigmoid(scaled + compute_soft_threshold(scaled, among, wanted)[:, None])
        return build_element_terms(torch.where(positive, losses, 0).sum(1) / positive.sum(1), kept)


def compute_soft_threshold(values: Tensor, among: Tensor, wanted: Tensor) -> Tensor:
    """The number c of each row for which ``sum_j sigmoid(value_j + c)`` is what is wanted, with its slope.

    Args:
        values: float [n, m]. among: bool [n, m], what counts. wanted: int [n], below the number that counts.
    """
    fixed = values.detach()
    level = torch.logit(wanted.to(fixed.dtype) / among.sum(1))
    low = level - fixed.masked_fill(~among, -torch.inf).amax(1)
    high = level - fixed.masked_fill(~among, torch.inf).amin(1)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        total = torch.where(among, torch.sigmoid(fixed + middle[:, None]), 0).sum(1)
        low = torch.where(total < wanted, middle, low)
        high = torch.where(total < wanted, high, middle)
    middle = (low + high) / 2
    chance = torch.sigmoid(fixed + middle[:, None])
    slopes = torch.where(among, chance * (1 - chance), 0)
    slopes = slopes / slopes.sum(1, keepdim=True).clamp(min=torch.finfo(slopes.dtype).tiny)
    return middle - (slopes * (values - fixed)).sum(1)
