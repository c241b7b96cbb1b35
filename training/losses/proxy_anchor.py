"""Proxy-anchor loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.losses.base import LossTerms, build_scalar_terms
from training.losses.class_vector_base import ClassVectorLoss, compute_cosines
from training.losses.parts.loss_batch import MixedPairs
from training.losses.parts.pair_masks import compute_masked_logsumexp, compute_soft_logsumexp


class ProxyAnchor(ClassVectorLoss):
    """One learned vector per class is the anchor; the batch's items are its positives and negatives.

    Formula: ``1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s(x, p) - delta)))
    + 1/|P| sum_p log(1 + sum_{x not of p} exp(alpha (s(x, p) + delta)))`` (eq. 4); P+: the batch's classes.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references: the proxies are the other end.
    A miner's indices weight the items within the sums.

    Parameters:
        margin: delta, 0.1. alpha: 32. Both the paper's. Proxies have 100 times the network's learning rate
            (``lr_factor``), as in the authors' script.

    Related losses: ProxyNCA has the item as anchor; multi-similarity is the same form without proxies.

    Reference implementation: the same values without a miner; with one, the library 2.9 multiplies an item's
    term by exp(w - 1) for its weight w, so items that were not chosen count e^-1 of the others instead of
    nothing.
    """

    name = "proxy_anchor"
    paper = "Kim et al., Proxy Anchor Loss, CVPR 2020, arXiv 2003.13911"
    when = "Fast and strong on some hundreds to thousands of classes; robust to batch composition."
    roles = "class_anchors"
    vectors = "proxies"
    lr_factor = 100.0

    def __init__(
        self, num_classes: int, embedding_dim: int, margin: float = 0.1, alpha: float = 32.0
    ) -> None:
        super().__init__(num_classes)
        proxies = torch.empty(num_classes, embedding_dim)
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(proxies, mode="fan_out"))
        self.delta, self.scale = margin, alpha

    def compute_weighted_terms(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None) -> LossTerms:
        """Means over proxies, so one number."""
        similarity = compute_cosines(self.proxies.to(embeddings.dtype), embeddings)
        is_own = torch.arange(self.num_classes, device=labels.device)[:, None] == labels[None, :]
        if weights is None:
            return self.compute_terms_of_cosines(similarity, is_own, ~is_own)
        weights = weights.expand_as(similarity)
        pull, push = self._compute_exponents(similarity)
        positive = compute_soft_logsumexp(pull, weights, is_own, with_one=True)
        negative = compute_soft_logsumexp(push, weights, ~is_own, with_one=True)
        return self._build_terms(positive, negative, is_own)

    def compute_terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        pull, push = self._compute_exponents(cosines)
        pulled = compute_masked_logsumexp(pull, positive, dim=1, with_one=True)
        pushed = compute_masked_logsumexp(push, negative, dim=1, with_one=True)
        return self._build_terms(pulled, pushed, positive)

    def compute_mixed_terms(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma = log(1 + x); the proxies that have mixed items weigh as in the clean loss.

        That is one over the batch's classes for what pulls, one over all classes for what pushes.
        """
        pull, push = self._compute_exponents(pairs.similarity)
        positive = compute_soft_logsumexp(pull, pairs.target, pairs.valid, with_one=True)
        negative = compute_soft_logsumexp(push, 1 - pairs.target, pairs.valid, with_one=True)
        anchors = pairs.valid.any(dim=1).sum().clamp(min=1)
        return build_scalar_terms(positive.sum() / anchors + negative.sum() / self.num_classes)

    def _compute_exponents(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        return -self.scale * (similarity - self.delta), self.scale * (similarity + self.delta)

    def _build_terms(self, positive: Tensor, negative: Tensor, is_own: Tensor) -> LossTerms:
        return build_scalar_terms(positive.sum() / is_own.any(1).sum().clamp(min=1) + negative.mean())
