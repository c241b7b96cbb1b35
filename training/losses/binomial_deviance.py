"""Binomial deviance loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms
from training.losses.parts.loss_batch import MixedPairs


class BinomialDeviance(PairLoss):
    """Logistic loss over every pair's cosine: each pair is a binary classification of its own.

    Formula: ``mean_a [ mean_p log(1 + exp(-beta (s - middle))) + mean_n log(1 + exp(gamma (s - middle))) ]``.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        beta: 2, gamma: 50 (the paper's alpha and its cost on negatives, in the form of Wang et al. 2019),
        middle: 0.5.

    Related losses: multi-similarity with competition between the pairs of an anchor; SigLIP with a learned
    scale and middle.

    Reference implementation: none here; means per anchor as in multi-similarity's authors' comparison.
    """

    name = "binomial_deviance"
    paper = "Yi et al., Deep Metric Learning for Practical Person Re-Identification, ICPR 2014"
    when = "When scores should read as yes or no per pair, without competition between pairs."
    roles = "items"
    positive = PairLoss.positive | {"beta", "gamma"}

    def __init__(self, beta: float = 2.0, gamma: float = 50.0, middle: float = 0.5) -> None:
        super().__init__(distance=CosineSimilarity())
        self.beta, self.gamma, self.middle = beta, gamma, middle

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        pull, push = positive.to(matrix.dtype), negative.to(matrix.dtype)
        return self._build_terms(matrix, pull, push, positive, negative)

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma identity, rho the logistic losses."""
        return self._build_terms(pairs.similarity, pairs.target, 1 - pairs.target, pairs.valid, pairs.valid)

    def _build_terms(
        self, cosines: Tensor, pull: Tensor, push: Tensor, positive: Tensor, negative: Tensor
    ) -> LossTerms:
        above = cosines - self.middle
        pull = F.softplus(-self.beta * above) * pull * positive
        push = F.softplus(self.gamma * above) * push * negative
        pulled = pull.sum(1) / positive.sum(1).clamp(min=1)
        return build_element_terms(pulled + push.sum(1) / negative.sum(1).clamp(min=1))
