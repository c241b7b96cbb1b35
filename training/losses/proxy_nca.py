"""ProxyNCA and ProxyNCA++."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import LossTerms, build_element_terms
from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_soft_logsumexp


class ProxyNCA(ClassVectorLoss):
    """Each item must be nearer to its class's learned proxy than to all others.

    Formula: ``mean_i -log softmax_c(-scale * d(x_i, p_c)^2)_{y_i}``, d the L2 distance of unit vectors.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        scale: 1, as in the paper.

    Related losses: ``proxy_nca_plus_plus`` is this with scale 9; normalised softmax has cosines in place of
    ``-d^2 = 2 cos - 2``, so it is this with scale 1 / (2 temperature).

    Reference implementation: the paper leaves the target out of the denominator, which makes values negative
    and lets satisfied items go on pulling; the library's softmax form is taken, in log space: the library
    drops items whose probability underflows, the hardest ones.
    """

    name = "proxy_nca"
    paper = "Movshovitz-Attias et al., No Fuss, ICCV 2017, arXiv 1703.07464"
    when = "Fast convergence from small batches; prefer proxy_nca_plus_plus."
    roles = "class_references"
    vectors = "proxies"

    def __init__(self, num_classes: int, embedding_dim: int, scale: float = 1.0) -> None:
        super().__init__(num_classes)
        self.proxies = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.scale = scale

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        # -d^2 = 2 cos - 2; softmax drops the 2
        logits = 2 * self.scale * compute_cosines(embeddings, self.proxies)
        return F.cross_entropy(logits, labels, reduction="none")

    def compute_terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        labels = positive.to(torch.uint8).argmax(1)
        return build_element_terms(F.cross_entropy(2 * self.scale * cosines, labels, reduction="none"))

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma+ identity, sigma- log, over one mixed proxy per hardest other proxy."""
        logits = self.scale * (2 * pairs.similarity - 2)
        pull = torch.where(pairs.valid, pairs.target * -logits, 0).sum(1)
        push = compute_soft_logsumexp(logits, 1 - pairs.target, pairs.valid)
        return build_element_terms((pull + push)[pairs.valid.any(1)])


class ProxyNCAPlusPlus(ProxyNCA):
    """ProxyNCA with a low temperature: the difference that made it work.

    Formula: ``mean_i -log softmax_c(-d(x_i, p_c)^2 / temperature)_{y_i}``.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        temperature: 1/9, the authors' code (it scales both vectors to length 3). Proxies have a
            learning rate 100,000 times the network's (``lr_factor``), by an Adam whose eps is 1, theirs too.

    Related losses: see ``proxy_nca``.

    Reference implementation: the same values; the rest of the paper (pooling, class-balanced batches) is not
    a loss.
    """

    name = "proxy_nca_plus_plus"
    paper = "Teh et al., ProxyNCA++, ECCV 2020, arXiv 2004.01113"
    when = "Fast convergence from small batches, some thousands of classes."
    lr_factor = 100_000.0
    adam_eps = 1.0

    def __init__(self, num_classes: int, embedding_dim: int, temperature: float = 1 / 9) -> None:
        super().__init__(num_classes, embedding_dim, scale=1 / temperature)
