"""Contrastive loss."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from training.losses.distances import unit_distance
from training.losses.library import ContrastiveLoss, LossTerms, PairLoss
from training.losses.mixable import MixedPairs, Roles


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

    def __init__(self, positive_margin: float = 0.0, negative_margin: float = 1.0) -> None:
        super().__init__(pos_margin=positive_margin, neg_margin=negative_margin)
        self.inner, self.outer = positive_margin, negative_margin

    def terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """The two hinges over the pairs of an L2 distance matrix."""
        return {
            **_term("pos_loss", (matrix - self.inner).relu(), positive, "pos_pair"),
            **_term("neg_loss", (self.outer - matrix).relu(), negative, "neg_pair"),
        }

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: identity outside, each hinge weighted by its share of the label."""
        distance = unit_distance(pairs.similarity)
        return {
            **_term("pos_loss", pairs.target * (distance - self.inner).relu(), pairs.valid, "pos_pair"),
            **_term("neg_loss", (1 - pairs.target) * (self.outer - distance).relu(), pairs.valid, "neg_pair"),
        }


def _term(name: str, values: Tensor, keep: Tensor, kind: str) -> dict[str, dict[str, Any]]:
    rows, columns = torch.where(keep)
    return {name: {"losses": values[rows, columns], "indices": (rows, columns), "reduction_type": kind}}
