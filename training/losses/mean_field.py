"""Mean-field losses: one learned mean field per class stands for all its items."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import LossTerms, build_scalar_terms
from training.losses.class_vector_base import ClassVectorLoss, compute_cosines


class MeanFieldLoss(ClassVectorLoss):
    """Base of both: a mean field for each class, and a regulariser that keeps mean fields apart."""

    vectors = "fields"

    def __init__(self, num_classes: int, embedding_dim: int, regularization: float) -> None:
        super().__init__(num_classes)
        self.fields = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.regularization = regularization

    def compute_regularizer(self) -> Tensor | float:
        """Its term in the loss."""
        if not self.regularization:
            return 0.0
        near = self.compute_nearness(compute_cosines(self.fields, self.fields)).square()
        return self.regularization * ((near.sum() - near.diagonal().sum()) / self.num_classes)

    def compute_nearness(self, cosines: Tensor) -> Tensor:
        """By how much cosines of mean fields are too large."""
        raise NotImplementedError


class MeanFieldContrastive(MeanFieldLoss):
    """The contrastive loss against mean fields M instead of against every other item.

    Formula: ``mean_i { [D(i, y_i) - positive_margin]_+ + sum_{c != y_i} [negative_margin - D(i, c)]_+ }
    + regularization * mean_c sum_{c' != c} [negative_margin - D(c, c')]_+^2``, D = 1 - cosine.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references. Cost n x num_classes.

    Parameters:
        positive_margin: 0.02, negative_margin: 0.3, the authors' script. regularization: 0, as in their
            README. M has 10 times the network's learning rate, as all class vectors; 2,000 in theirs, at a
            rate of 1e-4 (``lr_factor``).

    Related losses: contrastive; proxy losses, whose proxies compete in a softmax.

    Reference implementation: the same values; its script picks the best epoch on the test set.
    """

    name = "mean_field_contrastive"
    paper = "Furusawa, Mean Field Theory in Deep Metric Learning, ICLR 2024, arXiv 2306.15368"
    when = "The contrastive loss at the cost of a proxy loss."

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        positive_margin: float = 0.02,
        negative_margin: float = 0.3,
        regularization: float = 0.0,
    ) -> None:
        super().__init__(num_classes, embedding_dim, regularization)
        self.positive_margin, self.negative_margin = positive_margin, negative_margin

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distance = 1 - compute_cosines(embeddings, self.fields)
        own = distance.gather(1, labels[:, None])[:, 0]
        near = (self.negative_margin - distance).relu()
        others = near.sum(1) - near.gather(1, labels[:, None])[:, 0]
        return (own - self.positive_margin).relu() + others + self.compute_regularizer()

    def compute_nearness(self, cosines: Tensor) -> Tensor:
        return (self.negative_margin - 1 + cosines).relu()


class MeanFieldMultiSimilarity(MeanFieldLoss):
    """Class-wise multi-similarity against mean fields M.

    Formula: ``1/(alpha B) sum_c log(1 + A_c) + 1/(2 beta B) sum_{c != c'} log(1 + B_cc')``, B the batch's
    classes, ``A_c = mean_{i in c} e^{alpha (delta - s(i, c))}``,
    ``B_cc' = mean_{i in c} e^{beta (s(i, c') - delta)} + mean_{i in c'} e^{beta (s(i, c) - delta)}``; a mean
    over an absent class is 0. Plus ``regularization * mean_c sum_{c' != c} softplus_beta(s(c, c') -
    delta)^2``.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references. Cost n x num_classes.

    Parameters:
        alpha: 0.01, beta: 80, delta: 0.8, regularization: 0, the authors' script.

    Related losses: multi-similarity. Most of the value is the constant log(2) / alpha: compare no raw values.

    Reference implementation: the same values.
    """

    name = "mean_field_class_wise_multi_similarity"
    paper = "Furusawa, Mean Field Theory in Deep Metric Learning, ICLR 2024, arXiv 2306.15368"
    when = "Multi-similarity at the cost of a proxy loss."
    positive = MeanFieldLoss.positive | {"beta"}

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        alpha: float = 0.01,
        beta: float = 80.0,
        delta: float = 0.8,
        regularization: float = 0.0,
    ) -> None:
        super().__init__(num_classes, embedding_dim, regularization)
        if max(alpha * (1 + delta), beta * (1 - delta)) > 80:
            raise ValueError("alpha * (1 + delta) and beta * (1 - delta) must be at most 80 (exp overflows)")
        self.alpha, self.beta, self.delta = alpha, beta, delta

    def compute_weighted_terms(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None) -> LossTerms:
        """Means over classes, so one number; the weights are those of the items within their class."""
        classes, codes = torch.unique(labels, return_inverse=True)
        ones = torch.ones_like(embeddings[:, 0])
        counts = embeddings.new_zeros(len(classes)).index_add(0, codes, ones)
        weights = ones if weights is None else weights

        similarity = compute_cosines(embeddings, self.fields)
        own = similarity.gather(1, labels[:, None])[:, 0]
        pull = weights * (self.alpha * (self.delta - own)).exp()
        positive = pull.new_zeros(len(classes)).index_add(0, codes, pull) / counts
        push = weights[:, None] * (self.beta * (similarity - self.delta)).exp()
        means = push.new_zeros(len(classes), push.shape[1]).index_add(0, codes, push) / counts[:, None]

        # every unordered pair of classes appears twice in the sum, once per order
        present = means[:, classes]
        among = torch.log1p(present + present.T)
        seen = torch.zeros(self.num_classes, dtype=torch.bool, device=labels.device)
        seen[classes] = True
        absent = torch.log1p(means[:, ~seen])
        pairs = among.sum() - among.diagonal().sum() + 2 * absent.sum()
        total = torch.log1p(positive).sum() / self.alpha + pairs / (2 * self.beta)
        return build_scalar_terms(total / len(classes) + self.compute_regularizer())

    def compute_nearness(self, cosines: Tensor) -> Tensor:
        return F.softplus(cosines - self.delta, beta=self.beta)
