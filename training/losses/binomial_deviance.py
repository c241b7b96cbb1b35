"""Binomial deviance loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, per_element
from training.losses.parts.mixed_pairs import MixedPairs, Roles


class BinomialDeviance(PairLoss):
    """Every pair is a yes-or-no question: is it alike? Answered by a logistic curve over its cosine.

    Formula: ``mean_a [ mean_p log(1 + exp(-beta (s - middle))) + mean_n log(1 + exp(gamma (s - middle))) ]``.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        beta: 2, gamma: 50 (the paper's alpha and its cost on negatives, in the form of Wang et al. 2019),
        middle: 0.5.

    Neighbours: multi-similarity with competition between the pairs of an anchor; SigLIP with a learned
    scale and middle.

    In released code: none here; means per anchor as in multi-similarity's authors' comparison.
    """

    paper: ClassVar[str] = "Yi et al., Deep Metric Learning for Practical Person Re-Identification, ICPR 2014"
    roles: ClassVar[Roles] = "items"

    def __init__(self, beta: float = 2.0, gamma: float = 50.0, middle: float = 0.5) -> None:
        super().__init__(distance=CosineSimilarity())
        self.beta, self.gamma, self.middle = beta, gamma, middle

    def terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """Per anchor, from cosines."""
        weights_positive, weights_negative = positive.to(matrix.dtype), negative.to(matrix.dtype)
        return per_element(self._deviance(matrix, weights_positive, weights_negative, positive, negative))

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma identity, rho the logistic losses."""
        return per_element(
            self._deviance(pairs.similarity, pairs.target, 1 - pairs.target, pairs.valid, pairs.valid)
        )

    def _deviance(
        self, similarity: Tensor, alike: Tensor, unlike: Tensor, positive: Tensor, negative: Tensor
    ) -> Tensor:
        above = similarity - self.middle
        pull = (F.softplus(-self.beta * above) * alike * positive).sum(1) / positive.sum(1).clamp(min=1)
        push = (F.softplus(self.gamma * above) * unlike * negative).sum(1) / negative.sum(1).clamp(min=1)
        return pull + push
