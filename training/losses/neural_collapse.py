"""Regularisers that induce neural collapse where classes are of uneven size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import LossTerms, build_scalar_terms
from training.losses.class_vector_base import ClassVectorLoss


class NeuralCollapse(ClassVectorLoss):
    """Every class equally tight, and the class means equally far apart, however few items a class has.

    Formula: ``within 1/C sum_c mean_{i of c} |x_i - m_c|^2 - between 1/C sum_c min_{c' != c} angle(m_c - m,
    m_c' - m)``, x of unit length, m_c learned class means and m their mean; the first sum over the batch's
    classes. Angles in radians.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        within: 0.01, between: 0.1 (ours; the paper's code sets them on its command line). As a term beside
            another loss.

    Related losses: center is the first term with a mean over items, so that large classes count more.

    Reference implementation: the same, ``C`` all classes in both sums; here the first is over those that the
    batch holds, so that it does not fade with many classes. The second takes all pairs of classes, in every
    step: up to some ten thousand classes.
    """

    name = "neural_collapse"
    paper = "Liu et al., Inducing Neural Collapse in Deep Long-tailed Learning, 2023, arXiv 2302.12453"
    when = "Added to another loss where class sizes differ much. Never alone."
    vectors = "means"

    def __init__(
        self, num_classes: int, embedding_dim: int, within: float = 0.01, between: float = 0.1
    ) -> None:
        super().__init__(num_classes)
        if within < 0 or between < 0:
            raise ValueError("within and between must not be negative")
        self.within, self.between = within, between
        self.means = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))

    def compute_weighted_terms(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None) -> LossTerms:
        items = F.normalize(embeddings, dim=1)
        off = (items - self.means[labels]).square().sum(1)
        classes, codes = torch.unique(labels, return_inverse=True)
        given = torch.ones_like(off) if weights is None else weights
        sums = off.new_zeros(len(classes), 2).index_add(0, codes, torch.stack([given * off, given], 1))
        seen = sums[:, 1] > 0
        spread = (sums[seen, 0] / sums[seen, 1]).mean() if seen.any() else 0 * off.sum()
        return build_scalar_terms(self.within * spread - self.between * self._compute_mean_angle())

    def _compute_mean_angle(self) -> Tensor:
        """Mean over the classes of the angle to the nearest other mean, seen from the mean of all."""
        if self.num_classes < 2:
            return 0 * self.means.sum()
        centred = F.normalize(self.means - self.means.mean(0), dim=1)
        cosines = (centred @ centred.T).fill_diagonal_(-2.0)
        # acos has no finite slope at its ends
        return torch.acos(cosines.amax(1).clamp(-1 + 1e-5, 1 - 1e-5)).mean()
