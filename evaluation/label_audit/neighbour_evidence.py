"""What the neighbours of each item say about its label."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.array_types import Float64s, Int64s, RowIndices, UnitVectors
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from evaluation.kernels.label_kernels import find_other_labels
from evaluation.pairs.neighbours import find_neighbours
from evaluation.pairs.threads import compute_exact_similarities

NEIGHBOURS = 32  # of each item, among which its nearest other label is looked for
NEAREST = 5  # items of a label whose mean similarity counts: one may itself be labelled wrongly
AGREEING = 10  # nearest items whose labels are compared with the item's own
LARGE_CLASS = 2048  # items of a class from which it is searched block by block


@dataclass(frozen=True, eq=False)
class NeighbourEvidence:
    """Per item.

    Attributes:
        own: float64 [n]: mean similarity of the up to five nearest items of its label, NaN where it is alone.
        other, other_code: float64 and int64 [n]: the highest such mean of another label, and its code; NaN
            and -1 where all of the 32 nearest items have the item's own.
        nearest_other: int64 [n]: the nearest item of that label, -1 without one.
        agreement: float64 [n]: fraction of the 10 nearest items that have its label.
        nearest: float64 [n]: similarity of the nearest item of all.
    """

    own: Float64s
    other: Float64s
    other_code: Int64s
    nearest_other: RowIndices
    agreement: Float64s
    nearest: Float64s

    @property
    def margin(self) -> Float64s:
        """float64 [n]: how much nearer the other label is than the item's own; NaN without either."""
        return self.other - self.own


def gather_evidence(items: EmbeddingSet, track: Track = silent) -> NeighbourEvidence:
    """The evidence of all items: n² d / 2 multiplications, and memory for n items."""
    n = len(items)
    found = find_neighbours(items.vectors, NEIGHBOURS, track=track)
    other, nearest_other = np.full((2, n), -1, dtype=np.int64)
    mean = np.full(n, np.nan)
    find_other_labels(
        found.rows,
        found.similarities,
        items.codes,
        np.bincount(items.codes),
        NEAREST,
        other,
        mean,
        nearest_other,
    )
    few = found.rows[:, :AGREEING]
    is_own = (items.codes[few] == items.codes[:, None]) & (few >= 0)
    agreement = is_own.sum(axis=1) / np.maximum(1, (few >= 0).sum(axis=1))
    own = _measure_own_labels(items, track)
    return NeighbourEvidence(
        own, mean, other, nearest_other, agreement, found.similarities[:, 0].astype(float)
    )


def _measure_own_labels(items: EmbeddingSet, track: Track) -> Float64s:
    order = np.argsort(items.codes, kind="stable")
    edges = np.flatnonzero(np.diff(items.codes[order], prepend=-1, append=-1))
    own = np.full(len(items), np.nan)
    parts = list(pairwise(edges.tolist()))
    for first, stop in track(parts, "labels", len(parts)):
        rows = order[first:stop]
        if len(rows) > 1:
            own[rows] = _measure_class(items.vectors[rows])
    return own


def _measure_class(vectors: UnitVectors) -> Float64s:
    """float64 [m]: the mean similarity of each item's up to five nearest others."""
    k = min(NEAREST, len(vectors) - 1)
    if len(vectors) > LARGE_CLASS:
        return np.asarray(find_neighbours(vectors, k).similarities.mean(axis=1), dtype=np.float64)
    similarities = compute_exact_similarities(vectors, vectors)
    np.fill_diagonal(similarities, -np.inf)
    nearest = -np.partition(-similarities, k - 1, axis=1)[:, :k]
    return np.asarray(nearest.mean(axis=1), dtype=np.float64)
