"""Proxy-anchor loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.losses.base import Indices, LossTerms, reduced
from training.losses.class_vector_base import ClassVectorLoss, cosines
from training.losses.parts.mixed_pairs import MixedPairs, Roles
from training.losses.parts.pair_masks import item_weights, masked_logsumexp, soft_logsumexp


class ProxyAnchor(ClassVectorLoss):
    """One learned vector per class is the anchor; the batch's items are its positives and negatives.

    Formula: ``1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s(x, p) - delta)))
    + 1/|P| sum_p log(1 + sum_{x not of p} exp(alpha (s(x, p) + delta)))`` (eq. 4); P+: the batch's classes.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references: the proxies are the other end.
    A miner's indices weight the items within the sums.

    Parameters:
        margin: delta, 0.1. alpha: 32. Both the paper's. Proxies want some 100 times the network's learning
            rate (the authors' script).

    Neighbours: ProxyNCA has the item as anchor; multi-similarity is the same form without proxies.

    In released code: the same values without a miner; with one, the library 2.9 multiplies an item's term by
    exp(w - 1) for its weight w, so items that were not chosen count e^-1 of the others instead of nothing.
    """

    paper: ClassVar[str] = "Kim et al., Proxy Anchor Loss, CVPR 2020, arXiv 2003.13911"
    roles: ClassVar[Roles] = "class_anchors"

    def __init__(
        self, num_classes: int, embedding_dim: int, margin: float = 0.1, alpha: float = 32.0
    ) -> None:
        super().__init__(num_classes)
        proxies = torch.empty(num_classes, embedding_dim)
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(proxies, mode="fan_out"))
        self.delta, self.scale = margin, alpha

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d], not of unit length."""
        return self.proxies

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """Means over proxies, so one number."""
        self.check(embeddings, labels, ref_emb)
        similarity = cosines(self.proxies.to(embeddings.dtype), embeddings)
        mine = torch.arange(self.num_classes, device=labels.device)[:, None] == labels[None, :]
        if indices_tuple is None:
            return self.terms_of_cosines(similarity, mine, ~mine)
        weights = item_weights(len(labels), indices_tuple, embeddings).expand_as(similarity)
        pull, push = self._exponents(similarity)
        positive = soft_logsumexp(pull, weights, mine, with_one=True)
        return self._terms(positive, soft_logsumexp(push, weights, ~mine, with_one=True), mine)

    def terms_of_cosines(self, cosines: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        """From the cosines [num_classes, n] of all proxies and items."""
        pull, push = self._exponents(cosines)
        pulled = masked_logsumexp(pull, positive, dim=1, with_one=True)
        return self._terms(pulled, masked_logsumexp(push, negative, dim=1, with_one=True), positive)

    def _exponents(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        return -self.scale * (similarity - self.delta), self.scale * (similarity + self.delta)

    def _terms(self, positive: Tensor, negative: Tensor, mine: Tensor) -> LossTerms:
        return reduced(positive.sum() / mine.any(1).sum().clamp(min=1) + negative.mean())

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma = log(1 + x), the mean over the proxies that have mixed items."""
        pull, push = self._exponents(pairs.similarity)
        positive = soft_logsumexp(pull, pairs.target, pairs.valid, with_one=True)
        negative = soft_logsumexp(push, 1 - pairs.target, pairs.valid, with_one=True)
        anchors = pairs.valid.any(dim=1).sum().clamp(min=1)
        return reduced((positive + negative).sum() / anchors)
