"""Circle loss, over pairs and over class vectors."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import CircleLoss
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import LossTerms, PairLoss, build_element_terms
from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_masked_logsumexp, compute_soft_logsumexp


class Circle(PairLoss, CircleLoss):
    """Each similarity is pulled with a force that grows with its distance from its own optimum.

    Formula: ``log[1 + sum_j exp(gamma an_j (sn_j - m)) sum_i exp(-gamma ap_i (sp_i - (1 - m)))]`` (eq. 6) per
    anchor, ``ap = [1 + m - sp]_+``, ``an = [sn + m]_+``, both without gradient; mean over anchors with l > 0.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        margin: 0.4, the paper's for fine-grained retrieval (0.25 for faces and re-identification).
        gamma: 80 (256 for faces, 128 for re-identification).

    Related losses: circle_softmax is the same formula over class vectors. With the weights ``a`` held at 1 it
    is the generalised lifted structure through a softplus.

    Reference implementation: the library's; anchors without a positive or a negative count 0, and leave the
    mean. Some copies take one product of sums over the whole batch: another objective.
    """

    name = "circle"
    paper = "Sun et al., Circle Loss, CVPR 2020, arXiv 2002.10857"
    when = "Pairs of very different difficulty: each similarity sets its own pace."
    roles = "items"
    positive = PairLoss.positive | {"gamma"}

    def __init__(self, margin: float = 0.4, gamma: float = 80.0) -> None:
        super().__init__(m=margin, gamma=gamma)
        self.margin = margin
        self.scale = gamma

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: tau = softplus, sigma = log, rho = the weighted exponentials."""
        pull, push = compute_circle_exponents(pairs.similarity, self.margin, self.scale)
        total = compute_soft_logsumexp(pull, pairs.target, pairs.valid)
        total = total + compute_soft_logsumexp(push, 1 - pairs.target, pairs.valid)
        return build_element_terms(F.softplus(total))


class CircleSoftmax(ClassVectorLoss):
    """Circle loss by class labels: one learned vector per class stands for its items.

    Formula: eq. 6 with the class's own vector as the one positive and all others as negatives, ``log[1 +
    sum_{j != y} exp(gamma an_j (s_j - m)) exp(-gamma ap (s_y - (1 - m)))]``, ``ap = [1 + m - s_y]_+``, ``an =
    [s_j + m]_+``, both without gradient; mean over items. It is the softmax cross-entropy of those exponents.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        margin: 0.25. gamma: 256, the paper's for faces (128 for re-identification).

    Related losses: circle, the same formula over pairs; CosFace, where all similarities have one pace.

    Reference implementation: fast-reid's CircleSoftmax, the same values (128 is its gamma).
    """

    name = "circle_softmax"
    paper = "Sun et al., Circle Loss, CVPR 2020, arXiv 2002.10857"
    when = "Softmax training on many classes, e.g. faces, where similarities differ much in difficulty."
    positive = ClassVectorLoss.positive | {"gamma"}
    vectors = "weight"

    def __init__(
        self, num_classes: int, embedding_dim: int, margin: float = 0.25, gamma: float = 256.0
    ) -> None:
        super().__init__(num_classes)
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.margin, self.scale = margin, gamma

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosines = compute_cosines(embeddings, self.weight)
        pull, push = compute_circle_exponents(cosines, self.margin, self.scale)
        others = torch.ones_like(push, dtype=torch.bool).scatter(1, labels[:, None], False)
        return F.softplus(
            compute_masked_logsumexp(push, others, dim=1) + pull.gather(1, labels[:, None])[:, 0]
        )


def compute_circle_exponents(similarity: Tensor, margin: float, gamma: float) -> tuple[Tensor, Tensor]:
    """The exponents of eq. 6 for similarities as positives and as negatives, two tensors of their shape."""
    fixed = similarity.detach()
    pull = -gamma * (1 + margin - fixed).relu() * (similarity - 1 + margin)
    push = gamma * (fixed + margin).relu() * (similarity - margin)
    return pull, push
