"""Triplet margin loss."""

from __future__ import annotations

from typing import ClassVar

from training.losses.base import Loss, LossTerms, TripletMarginLoss, per_element
from training.losses.parts.distances import unit_distance
from training.losses.parts.mixed_pairs import MixedPairs, Roles


class Triplet(Loss, TripletMarginLoss):
    """A positive must be nearer than a negative by a margin.

    Formula: ``mean over triplets with l > 0 of l = [d(a, p) - d(a, n) + margin]_+``, d the L2 distance of
    unit vectors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.05, the library's.
        swap: also compare with d(p, n) (Balntas et al. 2016).
        smooth: softplus instead of the hinge; no triplet is ever done.

    Neighbours: multi-similarity weighs all pairs of an anchor at once; circle lets each similarity have its
    own pace; lifted structure is its soft maximum.

    In released code: the library's ``TripletMarginLoss`` as it is. The mean is over violating triplets only
    (FaceNet divides by all), so the step does not shrink as triplets are learned. All triplets of a batch
    are enumerated: n * positives * negatives of them.

    Mixed (ours; Metrix does not define it): v replaces the positive with weight y and the negative with
    weight 1 - y of the triplet whose positive and negative it was made of.
    """

    paper: ClassVar[str] = "Schroff et al., FaceNet, CVPR 2015"
    roles: ClassVar[Roles] = "items"

    def __init__(self, margin: float = 0.05, swap: bool = False, smooth: bool = False) -> None:
        super().__init__(margin=margin, swap=swap, smooth_loss=smooth)
        self.slack = margin

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form; see the class."""
        distance = unit_distance(pairs.similarity)
        as_positive = distance - unit_distance(pairs.to_negative) + self.slack
        as_negative = unit_distance(pairs.to_positive) - distance + self.slack
        loss = pairs.target * as_positive.relu() + (1 - pairs.target) * as_negative.relu()
        return per_element(loss[pairs.valid])
