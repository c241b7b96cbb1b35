"""Which two items each anchor gets mixed: a positive (or itself) and one of its hardest negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Indices, Loss
from training.losses.parts.mixed_pairs import Roles
from training.losses.parts.pair_masks import pair_masks


@dataclass(frozen=True)
class Side:
    """Anchors and the items or class vectors that are mixed, all of unit length.

    Attributes:
        anchors: float [a, d]. anchor_labels: int [a].
        mixed: float [m, d].
        positive, negative: bool [a, m], the pairs that count.
        similarity: float [a, m].
        among: float [m, m], cosines among the mixed; None where few of them are needed.
        clean: what the clean loss is computed from: cosines and both masks, for every class vector also of
            classes that the batch lacks.
    """

    anchors: Tensor
    anchor_labels: Tensor
    mixed: Tensor
    positive: Tensor
    negative: Tensor
    similarity: Tensor
    among: Tensor | None
    clean: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Choice:
    """Mixtures per anchor, padded; all [a, v].

    Attributes:
        first: int, row of what is mixed with weight ``share``. negative: int, row of the other.
        valid: bool.
        to_first, to_negative, first_to_negative: float, cosines.
    """

    first: Tensor
    negative: Tensor
    valid: Tensor
    to_first: Tensor
    to_negative: Tensor
    first_to_negative: Tensor


def sides(
    loss: Loss,
    roles: Roles,
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
    indices: Indices | None,
) -> Side:
    """Who is anchor and what is mixed, by their roles.

    Class vectors have no pairs that a miner could choose, so there the indices change the clean loss alone.
    """
    items = F.normalize(embeddings, dim=1)
    if roles == "items":
        same = ref_emb is None
        mixed = items if ref_emb is None else F.normalize(ref_emb.to(items.dtype), dim=1)
        mixed_labels = labels if ref_labels is None else ref_labels
        positive, negative = pair_masks(labels, mixed_labels, indices, same)
        similarity = items @ mixed.T
        between = similarity if same else mixed @ mixed.T
        clean = (similarity, positive, negative)
        return Side(items, labels, mixed, positive, negative, similarity, between, clean)
    vectors = F.normalize(loss.class_vectors.to(items.dtype), dim=1)
    classes = torch.arange(len(vectors), device=labels.device)
    if roles == "class_anchors":
        present = torch.unique(labels)
        whole = vectors @ items.T
        masks = pair_masks(classes, labels, None, same_items=False)
        positive, negative = (mask[present] for mask in masks)
        anchors, similarity = vectors.index_select(0, present), whole.index_select(0, present)
        return Side(anchors, present, items, positive, negative, similarity, None, (whole, *masks))
    positive, negative = pair_masks(labels, classes, None, same_items=False)
    similarity = items @ vectors.T
    among = _Gram.apply(vectors) if len(vectors) <= len(items) else None  # type: ignore[no-untyped-call]
    clean = (similarity, positive, negative)
    return Side(items, labels, vectors, positive, negative, similarity, among, clean)


class _Gram(torch.autograd.Function):
    """Float [m, d] to the products of all rows with each other, [m, m]; one product backwards, not two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        grown: Tensor = (gradient + gradient.T) @ rows
        return grown


def positive_negative(pair: Side, hardest: int, positives: int | None) -> Choice:
    """Each anchor's positives (all, or so many drawn evenly) times its k hardest negatives."""
    negative, negative_valid = _hardest(pair, hardest)
    first, first_valid = _positives(pair.positive, positives)
    a, p, k = len(first), first.shape[1], negative.shape[1]
    if pair.among is None:
        between = (_rows(pair.mixed, first) @ _rows(pair.mixed, negative).mT).reshape(a, p * k)
    first = first[:, :, None].expand(a, p, k).reshape(a, p * k)
    valid = (first_valid[:, :, None] & negative_valid[:, None, :]).reshape(a, p * k)
    negative = negative[:, None, :].expand(a, p, k).reshape(a, p * k)
    to_first, to_negative = pair.similarity.gather(1, first), pair.similarity.gather(1, negative)
    if pair.among is not None:
        between = pair.among[first, negative]
    return Choice(first, negative, valid, to_first, to_negative, between)


def _rows(items: Tensor, places: Tensor) -> Tensor:
    """Float [m, d] and int [a, p] to float [a, p, d]; unlike an index, this is quick backwards too."""
    return items.index_select(0, places.flatten()).view(*places.shape, -1)


def anchor_negative(pair: Side, hardest: int, positives: int | None) -> Choice:
    """Each anchor itself with its k hardest negatives; whether it has positives does not matter."""
    negative, valid = _hardest(pair, hardest)
    to_negative = pair.similarity.gather(1, negative)
    itself = torch.arange(len(negative), device=negative.device)[:, None].expand_as(negative)
    return Choice(itself, negative, valid, torch.ones_like(to_negative), to_negative, to_negative)


def _positives(positive: Tensor, at_most: int | None) -> tuple[Tensor, Tensor]:
    """Columns [a, p] of each anchor's positives, padded, and which of them are real."""
    counts = positive.sum(1)
    most = int(counts.max()) if len(counts) else 0
    if at_most is not None and at_most < most:
        drawn, columns = (torch.rand(positive.shape, device=positive.device) * positive).topk(at_most, dim=1)
        return columns, drawn > 0
    rows, columns = positive.nonzero(as_tuple=True)
    starts = counts.cumsum(0) - counts
    places = torch.arange(len(rows), device=rows.device) - starts[rows]
    padded = columns.new_zeros(len(counts), most)
    padded[rows, places] = columns
    return padded, torch.arange(most, device=rows.device)[None, :] < counts[:, None]


def _hardest(pair: Side, k: int) -> tuple[Tensor, Tensor]:
    """Columns [a, k] of the most similar negatives, and which of them are real."""
    lowest = torch.finfo(pair.similarity.dtype).min
    scores = pair.similarity.detach().masked_fill(~pair.negative, lowest)
    k = min(k, scores.shape[1])
    if k > 8:
        best, columns = scores.topk(k, dim=1)
        return columns, best > lowest
    chosen = []
    for _ in range(k):  # a few passes for the largest are faster than one partial sort
        chosen.append(scores.max(dim=1))
        scores.scatter_(1, chosen[-1].indices[:, None], lowest)
    found = torch.stack([part.values for part in chosen], dim=1)
    return torch.stack([part.indices for part in chosen], dim=1), found > lowest
