"""Lifted structure loss, generalised form."""

from __future__ import annotations

from pytorch_metric_learning.losses import GeneralizedLiftedStructureLoss
from torch import Tensor

from training.losses.base import LossTerms, PairLoss, build_element_terms
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_soft_logsumexp, compute_unit_distances


class LiftedStructure(PairLoss, GeneralizedLiftedStructureLoss):
    """The soft farthest positive must be nearer than the soft nearest negative.

    Formula: ``mean_a [ log sum_p exp(scale (d(a, p) - positive_margin))
    + log sum_n exp(scale (negative_margin - d(a, n))) ]_+ / scale``, d the L2 distance of unit vectors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        negative_margin: 1, positive_margin: 0, the library's.
        scale: 16, ours; the library's is 1. Distances of unit vectors lie within 0 to 2, so at 1 the soft
            nearest negative is nearly the mean of all, and little is learned (see the method's page).

    Related losses: the soft maximum of triplet; circle without its weights.

    Reference implementation: the library's ``GeneralizedLiftedStructureLoss``, at scale 1. The original (Oh
    Song et al., CVPR 2016) sums over positive pairs and squares the hinge.
    """

    name = "lifted_structure"
    paper = "Hermans et al., 2017, arXiv 1703.07737, after Oh Song et al., CVPR 2016"
    when = "Triplet with all pairs of an anchor at once, without a miner."
    roles = "items"
    by_distance = True

    def __init__(
        self, negative_margin: float = 1.0, positive_margin: float = 0.0, scale: float = 16.0
    ) -> None:
        super().__init__(neg_margin=scale * negative_margin, pos_margin=scale * positive_margin)
        self.inner, self.outer, self.scale = positive_margin, negative_margin, scale

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """The library's, over scaled distances."""
        terms = super().compute_pair_terms(self.scale * matrix, positive, negative)
        terms["loss"]["losses"] = terms["loss"]["losses"] / self.scale
        return terms

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: tau = [x]_+, sigma = log."""
        distance = compute_unit_distances(pairs.similarity)
        pull, push = self.scale * (distance - self.inner), self.scale * (self.outer - distance)
        positive = compute_soft_logsumexp(pull, pairs.target, pairs.valid)
        negative = compute_soft_logsumexp(push, 1 - pairs.target, pairs.valid)
        return build_element_terms((positive + negative).relu() / self.scale)
