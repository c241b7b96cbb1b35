"""Proto-triplet loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from training.losses.base import Loss, LossTerms, build_element_terms
from training.losses.parts.episodes import check_shots, split_episode
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_squared_distances

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

    Related losses: triplet on means: one positive and the hardest negative; ProxyNCA with computed proxies.

    Reference implementation: the same values for unit vectors; distances of raw features, and always an
    episode.
    """

    name = "proto_triplet"
    paper = "Mendez-Ruiz et al., SuSana Distancia is All You Need, 2023, arXiv 2305.09062"
    when = "Few-shot training: episodes of few items of many classes."

    def __init__(self, margin: float = 0.5, shots: int | None = None) -> None:
        super().__init__()
        self.margin, self.shots = margin, check_shots(shots)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """The hinge of every query that has a prototype of its own class and one of another."""
        weights = None if batch.has_references else batch.compute_item_weights()
        batch, queries = split_episode(batch, self.shots)
        items = F.normalize(batch.embeddings, dim=1)
        support = F.normalize(batch.references, dim=1) if batch.has_references else items
        classes, codes = torch.unique(batch.reference_labels, return_inverse=True)
        counts = torch.bincount(codes, minlength=len(classes)).to(items.dtype)
        sums = items.new_zeros(len(classes), items.shape[1]).index_add(0, codes, support)

        is_own = batch.labels[:, None] == classes[None, :]
        squared = compute_squared_distances(items, sums / counts[:, None])
        rest = counts[None, :].expand(len(items), -1)
        if not batch.has_references:
            others = (sums[codes] - items) / (counts[codes] - 1).clamp(min=1)[:, None]
            squared = torch.where(is_own, (items - others).square().sum(1, keepdim=True), squared)
            rest = rest - is_own.to(items.dtype)
        distance = (squared + NEAREST).sqrt()

        highest = torch.finfo(distance.dtype).max
        own = torch.where(is_own, distance, 0).sum(1)
        nearest = distance.masked_fill(is_own, highest).min(1).values if len(classes) else own
        counted = (is_own & (rest > 0)).any(1) & (~is_own).any(1)
        if not counted.any():
            return self.zero_losses()
        losses = torch.where(counted, own - nearest + self.margin, 0).relu()
        if weights is not None:
            losses = losses * (weights if queries is None else weights[queries])
        items = counted if queries is None else torch.where(queries)[0][counted]
        return build_element_terms(losses[counted], items)
