"""Contrastive loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from training.losses.base import ContrastiveLoss, LossTerms, PairLoss
from training.losses.parts.distances import unit_distance
from training.losses.parts.mixed_pairs import MixedPairs, Roles


class Contrastive(PairLoss, ContrastiveLoss):
    """Positive pairs closer than one distance, negative pairs further than another.

    Formula: ``mean over p with l > 0 of [d(a, p) - positive_margin]_+ + mean over n with l > 0 of
    [negative_margin - d(a, n)]_+``, d the L2 distance of unit vectors.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        positive_margin: 0, negative_margin: 1, the library's (tuned on CUB: 0.384, Musgrave et al. 2020).

    Neighbours: threshold-consistent margin is this on cosines with both margins well apart.

    In released code: the library's. Each mean is over violating pairs alone; Hadsell et al. square the terms.
    """

    paper: ClassVar[str] = "Hadsell et al., CVPR 2006"
    roles: ClassVar[Roles] = "items"
    by_distance: ClassVar[bool] = True

    def __init__(self, positive_margin: float = 0.0, negative_margin: float = 1.0) -> None:
        super().__init__(pos_margin=positive_margin, neg_margin=negative_margin)
        self.inner, self.outer = positive_margin, negative_margin

    def terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """The two hinges over the pairs of an L2 distance matrix."""
        return {
            **_term("pos_loss", matrix, positive, "pos_pair", lambda distance: distance - self.inner),
            **_term("neg_loss", matrix, negative, "neg_pair", lambda distance: self.outer - distance),
        }

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: identity outside, each hinge weighted by its share of the label."""
        distance, valid = unit_distance(pairs.similarity), pairs.valid
        near = pairs.target * (distance - self.inner).relu()
        far = (1 - pairs.target) * (self.outer - distance).relu()
        return {
            **_term("pos_loss", near, valid, "pos_pair", lambda losses: losses),
            **_term("neg_loss", far, valid, "neg_pair", lambda losses: losses),
        }


def _term(
    name: str, values: Tensor, keep: Tensor, kind: str, violation: Callable[[Tensor], Tensor]
) -> LossTerms:
    rows, columns = torch.where(keep)
    losses = violation(values[rows, columns]).relu()
    return {name: {"losses": losses, "indices": (rows, columns), "reduction_type": kind}}
