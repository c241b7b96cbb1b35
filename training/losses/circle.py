"""Circle loss."""

from __future__ import annotations

from pytorch_metric_learning.losses import CircleLoss
from torch.nn import functional as F

from training.losses.base import LossTerms, PairLoss, build_element_terms
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_soft_logsumexp


class Circle(PairLoss, CircleLoss):
    """Each similarity is pulled with a force that grows with its distance from its own optimum.

    Formula: ``log[1 + sum_j exp(gamma an_j (sn_j - m)) sum_i exp(-gamma ap_i (sp_i - (1 - m)))]`` (eq. 6) per
    anchor, ``ap = [1 + m - sp]_+``, ``an = [sn + m]_+``, both without gradient; mean over anchors with l > 0.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.4, the paper's for fine-grained retrieval (0.25 for faces and re-identification).
        gamma: 80 (256 for faces, 128 for re-identification).

    Related losses: with the weights ``a`` held at 1 it is the generalised lifted structure through a
    softplus.

    Reference implementation: the library's; anchors without a positive or a negative count 0, and leave the
    mean. Some copies take one product of sums over the whole batch: another objective.
    """

    name = "circle"
    paper = "Sun et al., Circle Loss, CVPR 2020, arXiv 2002.10857"
    when = "Pairs of very different difficulty: each similarity sets its own pace."
    roles = "items"

    def __init__(self, margin: float = 0.4, gamma: float = 80.0) -> None:
        super().__init__(m=margin, gamma=gamma)
        self.margin = margin
        self.scale = gamma

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: tau = softplus, sigma = log, rho = the weighted exponentials."""
        similarity, fixed = pairs.similarity, pairs.similarity.detach()
        pull = -self.scale * (1 + self.margin - fixed).relu() * (similarity - 1 + self.margin)
        push = self.scale * (fixed + self.margin).relu() * (similarity - self.margin)
        total = compute_soft_logsumexp(pull, pairs.target, pairs.valid)
        total = total + compute_soft_logsumexp(push, 1 - pairs.target, pairs.valid)
        return build_element_terms(F.softplus(total))
