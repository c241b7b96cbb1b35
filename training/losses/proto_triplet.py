"""Proto-triplet loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Indices, Loss, LossTerms, per_element
from training.losses.parts.distances import squared_distances
from training.losses.parts.episodes import in_support
from training.losses.parts.pair_masks import item_weights

NEAREST = 1e-6  # under the root, as in the authors' code


class ProtoTriplet(Loss):
    """Each query must be nearer to its class's prototype than to the nearest other one, by a margin.

    Formula: ``mean_q [ d(q, c_y) - min_{k != y} d(q, c_k) + margin ]_+``, c the class means of the support,
    ``d(a, b) = sqrt(|a - b|^2 + 1e-6)`` of unit vectors.

    Shapes: embeddings [n, d], labels [n]; references [m, d] are the support. Without references and without
    ``shots`` every item is a query and the others of its class are its support (leave one out), so the batch
    is used twice over; an item that is alone in its class is support only. A miner's indices weight the
    queries.

    Parameters:
        margin: 0.5, the authors'.
        shots: null; with a number the first ``shots`` items of each class in the batch are the support and
            the others the queries, as in an episode (sampler ``episodic``).

    Neighbours: triplet on means: one positive and the hardest negative; ProxyNCA with computed proxies.

    In released code: the same values for unit vectors; distances of raw features, and always an episode.
    """

    paper: ClassVar[str] = "Mendez-Ruiz et al., SuSana Distancia is All You Need, 2023, arXiv 2305.09062"

    def __init__(self, margin: float = 0.5, shots: int | None = None) -> None:
        super().__init__()
        if shots is not None and shots < 1:
            raise ValueError(f"shots must be at least 1, found {shots}")
        self.margin, self.shots = margin, shots

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Indices | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> LossTerms:
        """The hinge of every query that has a prototype of its own class and one of another."""
        alone = ref_emb is embeddings
        weights = item_weights(len(labels), indices_tuple if alone else None, embeddings)
        if alone and self.shots:
            support = in_support(labels, self.shots)
            ref_emb, ref_labels = embeddings[support], labels[support]
            embeddings, labels, weights = embeddings[~support], labels[~support], weights[~support]
            alone = False
        items = F.normalize(embeddings, dim=1)
        support = items if alone else F.normalize(ref_emb, dim=1)
        classes, codes = torch.unique(ref_labels, return_inverse=True)
        counts = torch.bincount(codes, minlength=len(classes)).to(items.dtype)
        sums = items.new_zeros(len(classes), items.shape[1]).index_add(0, codes, support)

        mine = labels[:, None] == classes[None, :]
        squared = squared_distances(items, sums / counts[:, None])
        rest = counts[None, :].expand(len(items), -1)
        if alone:
            others = (sums[codes] - items) / (counts[codes] - 1).clamp(min=1)[:, None]
            squared = torch.where(mine, (items - others).square().sum(1, keepdim=True), squared)
            rest = rest - mine.to(items.dtype)
        distance = (squared + NEAREST).sqrt()

        highest = torch.finfo(distance.dtype).max
        own = torch.where(mine, distance, 0).sum(1)
        nearest = distance.masked_fill(mine, highest).min(1).values if len(classes) else own
        counted = (mine & (rest > 0)).any(1) & (~mine).any(1)
        if not counted.any():
            return self.zero_losses()
        losses = torch.where(counted, own - nearest + self.margin, 0).relu() * weights
        return per_element(losses[counted])
