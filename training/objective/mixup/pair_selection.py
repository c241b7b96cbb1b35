"""Selection of the two items that are mixed for each anchor: a positive (or itself) and a hard negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses import Loss
from training.losses.parts.loss_batch import Indices, Roles
from training.losses.parts.pair_masks import build_pair_masks


@dataclass(frozen=True)
class AnchorPairs:
    """Anchors and the items or class vectors that can be mixed for them, all of unit length.

    Attributes:
        anchors: float [a, d]. anchor_labels: int [a].
        candidates: float [m, d], what is mixed.
        positive, negative: bool [a, m], the pairs that count.
        similarity: float [a, m].
        between: float [m, m], cosines between the candidates; None where few of them are needed.
        clean: what the clean loss is computed from: cosines and both masks, for every class vector also of
            classes that the batch lacks.
    """

    anchors: Tensor
    anchor_labels: Tensor
    candidates: Tensor
    positive: Tensor
    negative: Tensor
    similarity: Tensor
    between: Tensor | None
    clean: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Mixtures:
    """The two candidates of each mixture of each anchor, padded; all [a, v].

    Attributes:
        first: int, row of the candidate that is mixed with weight lambda. negative: int, row of the other.
        valid: bool; the rest is padding.
        to_first, to_negative, first_to_negative: float, cosines.
    """

    first: Tensor
    negative: Tensor
    valid: Tensor
    to_first: Tensor
    to_negative: Tensor
    first_to_negative: Tensor


def build_anchor_pairs(
    loss: Loss, roles: Roles, embeddings: Tensor, labels: Tensor, indices: Indices | None
) -> AnchorPairs:
    """Anchors and candidates by the loss's roles, from float [n, d] and int [n].

    Class vectors have no pairs that a miner could select, so there the indices change the clean loss alone.
    """
    items = F.normalize(embeddings, dim=1)
    if roles == "items":
        positive, negative = build_pair_masks(labels, labels, indices, same_items=True)
        similarity = items @ items.T
        clean = (similarity, positive, negative)
        return AnchorPairs(items, labels, items, positive, negative, similarity, similarity, clean)
    vectors = F.normalize(loss.class_vectors.to(items.dtype), dim=1)
    classes = torch.arange(len(vectors), device=labels.device)
    if roles == "class_anchors":
        present = torch.unique(labels)
        similarities = vectors @ items.T
        masks = build_pair_masks(classes, labels, None, same_items=False)
        positive, negative = (mask[present] for mask in masks)
        anchors, similarity = vectors.index_select(0, present), similarities.index_select(0, present)
        return AnchorPairs(
            anchors, present, items, positive, negative, similarity, None, (similarities, *masks)
        )
    positive, negative = build_pair_masks(labels, classes, None, same_items=False)
    similarity = items @ vectors.T
    between = _Gram.apply(vectors) if len(vectors) <= len(items) else None  # type: ignore[no-untyped-call]
    clean = (similarity, positive, negative)
    return AnchorPairs(items, labels, vectors, positive, negative, similarity, between, clean)


class _Gram(torch.autograd.Function):
    """Float [m, d] to the products of all rows with each other, [m, m]; one product backwards, not two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        rows_gradient: Tensor = (gradient + gradient.T) @ rows
        return rows_gradient


def select_positive_negative(pairs: AnchorPairs, hardest: int, positives: int | None) -> Mixtures:
    """Each anchor's positives (all, or so many drawn evenly) times its k hardest negatives."""
    negative, negative_valid = _select_hardest(pairs, hardest)
    first, first_valid = _select_positives(pairs.positive, positives)
    a, p, k = len(first), first.shape[1], negative.shape[1]
    if pairs.between is None:
        rows = _take_rows(pairs.candidates, first) @ _take_rows(pairs.candidates, negative).mT
        first_to_negative = rows.reshape(a, p * k)
    first = first[:, :, None].expand(a, p, k).reshape(a, p * k)
    valid = (first_valid[:, :, None] & negative_valid[:, None, :]).reshape(a, p * k)
    negative = negative[:, None, :].expand(a, p, k).reshape(a, p * k)
    to_first, to_negative = pairs.similarity.gather(1, first), pairs.similarity.gather(1, negative)
    if pairs.between is not None:
        first_to_negative = pairs.between[first, negative]
    return Mixtures(first, negative, valid, to_first, to_negative, first_to_negative)


def select_anchor_negative(pairs: AnchorPairs, hardest: int, positives: int | None) -> Mixtures:
    """Each anchor itself with its k hardest negatives; whether it has positives does not matter."""
    negative, valid = _select_hardest(pairs, hardest)
    to_negative = pairs.similarity.gather(1, negative)
    itself = torch.arange(len(negative), device=negative.device)[:, None].expand_as(negative)
    return Mixtures(itself, negative, valid, torch.ones_like(to_negative), to_negative, to_negative)


def _take_rows(items: Tensor, indices: Tensor) -> Tensor:
    """Float [m, d] and int [a, p] to float [a, p, d]; an index would be slow backwards."""
    return items.index_select(0, indices.flatten()).view(*indices.shape, -1)


def _select_positives(positive: Tensor, at_most: int | None) -> tuple[Tensor, Tensor]:
    """Columns [a, p] of each anchor's positives, padded, and which of them are real."""
    counts = positive.sum(1)
    most = int(counts.max()) if len(counts) else 0
    if at_most is not None and at_most < most:
        drawn, columns = (torch.rand(positive.shape, device=positive.device) * positive).topk(at_most, dim=1)
        return columns, drawn > 0
    rows, columns = positive.nonzero(as_tuple=True)
    starts = counts.cumsum(0) - counts
    positions = torch.arange(len(rows), device=rows.device) - starts[rows]
    padded = columns.new_zeros(len(counts), most)
    padded[rows, positions] = columns
    return padded, torch.arange(most, device=rows.device)[None, :] < counts[:, None]


def _select_hardest(pairs: AnchorPairs, k: int) -> tuple[Tensor, Tensor]:
    """Columns [a, k] of the most similar negatives, and which of them are real."""
    lowest = torch.finfo(pairs.similarity.dtype).min
    scores = pairs.similarity.detach().masked_fill(~pairs.negative, lowest)
    k = min(k, scores.shape[1])
    if k > 8:
        best, columns = scores.topk(k, dim=1)
        return columns, best > lowest
    maxima = []
    for _ in range(k):  # a few passes for the largest are faster than one partial sort
        maxima.append(scores.max(dim=1))
        scores.scatter_(1, maxima[-1].indices[:, None], lowest)
    values = torch.stack([each.values for each in maxima], dim=1)
    return torch.stack([each.indices for each in maxima], dim=1), values > lowest
