"""Triplet margin loss."""

from __future__ import annotations

from pytorch_metric_learning.losses import TripletMarginLoss

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_unit_distances


class Triplet(Loss, TripletMarginLoss):
    """A positive must be nearer than a negative by a margin.

    Formula: ``mean over triplets with l > 0 of l = [d(a, p) - d(a, n) + margin]_+``, d the L2 distance of
    unit vectors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.05, the library's.
        swap: also compare with d(p, n) (Balntas et al. 2016).
        smooth: softplus instead of the hinge; no triplet is ever done.

    Related losses: multi-similarity weighs all pairs of an anchor at once; circle lets each similarity have
    its own pace; lifted structure is its soft maximum.

    Reference implementation: the library's ``TripletMarginLoss`` as it is. The mean is over violating
    triplets only (FaceNet divides by all), so the step does not shrink as triplets are learned. All triplets
    of a batch are enumerated: n * positives * negatives of them.

    Mixed (ours; Metrix does not define it): v replaces the positive with weight y and the negative with
    weight 1 - y of the triplet whose positive and negative it was made of.
    """

    name = "triplet"
    paper = "Schroff et al., FaceNet, CVPR 2015"
    when = "A baseline with few assumptions. It lists all triplets: add a miner for large batches."
    roles = "items"

    def __init__(self, margin: float = 0.05, swap: bool = False, smooth: bool = False) -> None:
        super().__init__(margin=margin, swap=swap, smooth_loss=smooth)
        self.slack = margin

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        distance = compute_unit_distances(pairs.similarity)
        as_positive = distance - compute_unit_distances(pairs.to_negative) + self.slack
        as_negative = compute_unit_distances(pairs.to_positive) - distance + self.slack
        loss = pairs.target * as_positive.relu() + (1 - pairs.target) * as_negative.relu()
        return build_element_terms(loss[pairs.valid])
