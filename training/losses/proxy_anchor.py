"""Proxy-anchor loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from training.losses.library import Loss, LossTerms, ProxyAnchorLoss
from training.losses.mixable import MixedPairs, Roles
from training.losses.pairs import soft_logsumexp


class ProxyAnchor(Loss, ProxyAnchorLoss):
    """One learned vector per class is the anchor; the batch's items are its positives and negatives.

    Formula (eq. 4): ``1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s(x, p) - delta)))
    + 1/|P| sum_p log(1 + sum_{x not of p} exp(alpha (s(x, p) + delta)))``; P+ are the batch's classes.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references: the proxies are the other end.

    Parameters:
        margin: delta, 0.1. alpha: 32. Both the paper's. Proxies want some 100 times the network's learning
            rate (the authors' script).

    Neighbours: ProxyNCA has the item as anchor; multi-similarity is the same form without proxies.

    In released code: the library's; it multiplies terms by exp(w - 1) for miner weights w, which is 1
    without a miner.
    """

    paper: ClassVar[str] = "Kim et al., Proxy Anchor Loss, CVPR 2020, arXiv 2003.13911"
    takes_references: ClassVar[bool] = False
    roles: ClassVar[Roles] = "class_anchors"

    def __init__(
        self, num_classes: int, embedding_dim: int, margin: float = 0.1, alpha: float = 32.0
    ) -> None:
        super().__init__(num_classes=num_classes, embedding_size=embedding_dim, margin=margin, alpha=alpha)
        self.delta, self.scale = margin, alpha

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d], not of unit length."""
        return self.get_parameter("proxies")

    def mixed(self, pairs: MixedPairs) -> LossTerms:
        """Generalised form: sigma = log(1 + x), the mean over the proxies that have mixed items."""
        positive = soft_logsumexp(
            -self.scale * (pairs.similarity - self.delta), pairs.target, pairs.valid, with_one=True
        )
        negative = soft_logsumexp(
            self.scale * (pairs.similarity + self.delta), 1 - pairs.target, pairs.valid, with_one=True
        )
        anchors = int(pairs.valid.any(dim=1).sum())
        return {
            name: {
                "losses": values,
                "indices": torch.arange(len(values), device=values.device),
                "reduction_type": "element",
                "divisor": anchors,
            }
            for name, values in (("pos_loss", positive), ("neg_loss", negative))
        }
