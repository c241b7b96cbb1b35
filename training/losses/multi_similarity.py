"""Multi-similarity loss."""

from __future__ import annotations

from pytorch_metric_learning.losses import MultiSimilarityLoss

from training.losses.base import LossTerms, PairLoss, build_element_terms
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_soft_logsumexp


class MultiSimilarity(PairLoss, MultiSimilarityLoss):
    """Soft maxima over an anchor's too distant positives and its too similar negatives.

    Formula: ``mean_a [ log(1 + sum_p exp(-alpha (s - base))) / alpha
    + log(1 + sum_n exp(beta (s - base))) / beta ]``, s the cosine (eq. 15).

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        alpha: 2, beta: 50, base: 0.5, the library's; tuned on CUB with the paper's miner: 17.97, 75.66, 0.77
            (Musgrave et al. 2020).

    Related losses: the miner of the same paper (``miner: multi_similarity``) leaves out easy pairs; binomial
    deviance is its form without competition between the pairs of an anchor.

    Reference implementation: the library's, unchanged.
    """

    name = "multi_similarity"
    paper = "Wang et al., Multi-Similarity Loss, CVPR 2019, arXiv 1904.06627"
    when = "The default: strong, with little to tune."
    roles = "items"
    positive = PairLoss.positive | {"beta"}

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5) -> None:
        super().__init__(alpha=alpha, beta=beta, base=base)
        self.pull, self.push, self.middle = alpha, beta, base

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma+ = log(1 + x) / alpha, sigma- = log(1 + x) / beta."""
        above = pairs.similarity - self.middle
        positive = compute_soft_logsumexp(-self.pull * above, pairs.target, pairs.valid, with_one=True)
        negative = compute_soft_logsumexp(self.push * above, 1 - pairs.target, pairs.valid, with_one=True)
        return build_element_terms(positive / self.pull + negative / self.push)
