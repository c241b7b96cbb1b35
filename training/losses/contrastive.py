"""Contrastive loss."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import ContrastiveLoss
from torch import Tensor

from training.losses.base import LossTerms, PairLoss
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_unit_distances


class Contrastive(PairLoss, ContrastiveLoss):
    """Positive pairs closer than one distance, negative pairs further than another.

    Formula: ``mean over p with l > 0 of [d(a, p) - positive_margin]_+ + mean over n with l > 0 of
    [negative_margin - d(a, n)]_+``, d the L2 distance of unit vectors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        positive_margin: 0, negative_margin: 1, the library's (tuned on CUB: 0.384, Musgrave et al. 2020).

    Related losses: threshold-consistent margin is this on cosines with both margins well apart.

    Reference implementation: the library's. Each mean is over violating pairs alone; Hadsell et al. square
    the terms.
    """

    name = "contrastive"
    paper = "Hadsell et al., CVPR 2006"
    when = "Two margins you want to see in the distances afterwards."
    roles = "items"
    by_distance = True

    def __init__(self, positive_margin: float = 0.0, negative_margin: float = 1.0) -> None:
        super().__init__(pos_margin=positive_margin, neg_margin=negative_margin)
        self.inner, self.outer = positive_margin, negative_margin

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        return {
            **_build_term("pos_loss", matrix - self.inner, positive, "pos_pair"),
            **_build_term("neg_loss", self.outer - matrix, negative, "neg_pair"),
        }

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: identity outside, each hinge weighted by its fraction of the label."""
        distance, valid = compute_unit_distances(pairs.similarity), pairs.valid
        near = pairs.target * (distance - self.inner).relu()
        far = (1 - pairs.target) * (self.outer - distance).relu()
        return {
            **_build_term("pos_loss", near, valid, "pos_pair"),
            **_build_term("neg_loss", far, valid, "neg_pair"),
        }


def _build_term(name: str, violations: Tensor, keep: Tensor, kind: str) -> LossTerms:
    rows, columns = torch.where(keep)
    losses = violations[rows, columns].relu()
    return {name: {"losses": losses, "indices": (rows, columns), "reduction_type": kind}}
