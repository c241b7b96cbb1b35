"""Hard negatives of every item, without those that may be positives in truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from api_schemas.config import MiningRule
from common.array_types import Bools, Float32s, Int64s, RowIndices, UnitVectors
from common.progress import Track, silent
from training.mining.neighbours import BLOCK, iterate_cluster_mates, iterate_neighbours

OWN_MEMBERS = 0.05  # quantile of the members' similarity to their class, from which on an item could be one


@dataclass(frozen=True)
class MinedNegatives:
    """One row an item.

    Attributes:
        positives: int [n], an item of the same class; -1 for the only one of its class.
        negatives: int [n, k], items of other classes, nearest first; -1 where fewer passed.
        positive_scores: float32 [n]. negative_scores: float32 [n, k]. Cosines; NaN where there is no item.
        n_candidates: pairs in the window of ranks. n_dropped: of them, how many a filter left out.
    """

    positives: RowIndices
    negatives: RowIndices
    positive_scores: Float32s
    negative_scores: Float32s
    n_candidates: int
    n_dropped: int


def mine_negatives(
    vectors: UnitVectors, codes: Int64s, rule: MiningRule, seed: int = 0, track: Track = silent
) -> MinedNegatives:
    """Search, filter and take, block by block: memory is the vectors, an index of them and one block.

    Args:
        vectors: float32 [n, d], unit rows. codes: int [n], classes.
    """
    random = np.random.default_rng(seed)
    positives = draw_positives(codes, random)
    has_positive = positives >= 0
    positive_scores = _compute_similarities(vectors, np.arange(len(vectors)), positives)
    positive_scores[~has_positive] = np.nan
    classes = None if rule.class_margin is None else _ClassSimilarities(vectors, codes)
    negatives = np.full((len(vectors), rule.negatives), -1, dtype=np.int64)
    scores_taken = np.full(negatives.shape, np.nan, dtype=np.float32)
    n_candidates = n_dropped = 0
    blocks = _list_candidates(vectors, codes, rule, random)
    for start, scores, rows in track(blocks, "mining", math.ceil(len(vectors) / BLOCK)):
        anchors = np.arange(start, start + len(rows))
        window = _select_window((rows >= 0) & (codes[rows] != codes[anchors][:, None]), rule)
        window &= has_positive[anchors][:, None]
        keep = window & _pass_filters(scores, positive_scores[anchors][:, None], rule)
        if classes is not None:
            keep &= ~classes.find_possible_members(anchors, rows, keep, rule.class_margin or 0.0)
        n_candidates += int(window.sum())
        n_dropped += int((window & ~keep).sum())
        taken = _take(keep, rule, random)
        for column in range(taken.shape[1]):
            found = taken[:, column] >= 0
            at = taken[found, column]
            negatives[anchors[found], column] = rows[found, at]
            scores_taken[anchors[found], column] = scores[found, at]
    return MinedNegatives(positives, negatives, positive_scores, scores_taken, n_candidates, n_dropped)


def draw_positives(codes: Int64s, random: np.random.Generator) -> RowIndices:
    """Another item of each item's class, drawn evenly; int [n], -1 for the only one of its class."""
    _, codes = np.unique(codes, return_inverse=True)
    members = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.cumsum(counts) - counts
    position = np.empty_like(members)
    position[members] = np.arange(len(members)) - starts[codes[members]]
    size = counts[codes]
    step = 1 + (random.random(len(codes)) * np.maximum(size - 1, 1)).astype(np.int64)
    drawn = members[starts[codes] + (position + step) % size]
    return np.where(size > 1, drawn, -1)


def _list_candidates(
    vectors: UnitVectors, codes: Int64s, rule: MiningRule, random: np.random.Generator
) -> Iterator[tuple[int, Float32s, Int64s]]:
    """Blocks of candidates: the window, and room for an anchor's own class (up to four windows) before it."""
    if rule.clusters is not None:
        return iterate_cluster_mates(vectors, rule.clusters, rule.top, random)
    largest = int(np.unique(codes, return_counts=True)[1].max())
    return iterate_neighbours(vectors, rule.top + min(largest, 4 * rule.top))


def _select_window(is_negative: Bools, rule: MiningRule) -> Bools:
    """Of the negatives, nearest first, those of the ranks skip to top."""
    rank = np.cumsum(is_negative, axis=1)
    return is_negative & (rank > rule.skip) & (rank <= rule.top)


def _pass_filters(scores: Float32s, positive: Float32s, rule: MiningRule) -> Bools:
    """Scores [b, k] and the positive's [b, 1] to what every filter given lets through."""
    keep = np.ones(scores.shape, dtype=bool)
    if rule.margin is not None:
        keep &= scores < positive - np.float32(rule.margin)
    if rule.percentage is not None:
        keep &= scores < positive - np.float32(1 - rule.percentage) * np.abs(positive)
    if rule.max_score is not None:
        keep &= scores <= np.float32(rule.max_score)
    if rule.min_score is not None:
        keep &= scores >= np.float32(rule.min_score)
    return keep


def _take(keep: Bools, rule: MiningRule, random: np.random.Generator) -> RowIndices:
    """Columns [b, negatives] of what is taken, nearest first; -1 where fewer passed."""
    order = random.random(keep.shape) if rule.sampling == "random" else np.arange(keep.shape[1])
    ranked = np.where(keep, order, np.inf)
    first = np.argsort(ranked, axis=1, kind="stable")[:, : rule.negatives]
    first = np.where(np.take_along_axis(keep, first, 1), first, keep.shape[1])
    first = np.sort(first, axis=1)
    return np.where(first < keep.shape[1], first, -1)


class _ClassSimilarities:
    """Similarity of items to the means of classes: an item's own class is meant without the item."""

    def __init__(self, vectors: UnitVectors, codes: Int64s) -> None:
        _, self.codes = np.unique(codes, return_inverse=True)
        self.vectors, count = vectors, int(self.codes.max()) + 1
        sums = np.zeros((count, vectors.shape[1]), dtype=np.float32)
        np.add.at(sums, self.codes, vectors)
        self.means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        self.own = np.empty(len(vectors), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            rows = slice(start, start + BLOCK)
            others = sums[self.codes[rows]] - vectors[rows]
            lengths = np.maximum(np.linalg.norm(others, axis=1), 1e-12)
            self.own[rows] = np.einsum("bd,bd->b", others, vectors[rows]) / lengths
        order = np.lexsort((self.own, self.codes))
        counts = np.bincount(self.codes)
        starts = np.cumsum(counts) - counts
        self.least = self.own[order][starts + (OWN_MEMBERS * (counts - 1)).round().astype(np.int64)]
        self.own[counts[self.codes] == 1] = -1.0  # the only one of its class could be of any other

    def find_possible_members(self, anchors: RowIndices, rows: Int64s, keep: Bools, margin: float) -> Bools:
        """Which of the kept items, bool [b, k], could be of the anchor's class."""
        line, column = np.nonzero(keep)
        items, classes = rows[line, column], self.codes[anchors][line]
        similarity = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), 4 * BLOCK):
            part = slice(start, start + 4 * BLOCK)
            similarity[part] = np.einsum("ed,ed->e", self.vectors[items[part]], self.means[classes[part]])
        found = np.zeros(keep.shape, dtype=bool)
        is_near = similarity >= self.least[classes] - np.float32(margin)
        found[line, column] = is_near & (similarity > self.own[items] - np.float32(margin))
        return found


def _compute_similarities(vectors: UnitVectors, a: RowIndices, b: RowIndices) -> Float32s:
    """Cosine of each pair of rows, float32 [n]."""
    similarities = np.empty(len(a), dtype=np.float32)
    for start in range(0, len(a), BLOCK):
        part = slice(start, start + BLOCK)
        similarities[part] = np.einsum("bd,bd->b", vectors[a[part]], vectors[b[part]])
    return similarities
