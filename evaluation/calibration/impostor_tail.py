"""The impostor pairs with the highest scores, and their exact scores near a threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.progress import Track, silent
from embeddings.similarity import pair_similarities
from evaluation.calibration.bootstrap_bounds import class_matrix
from evaluation.pairs.pairs import Pairs

WINDOW = 2e-5  # relative to the scale of scores, far above the rounding of a float32 product
SAMPLE_ROWS = 1000
EXACT_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Tail:
    """All impostor pairs with a score of at least ``floor``, highest first.

    Attributes:
        a, b: int64 [m], positions in ``pairs.a``.
        scores: float32 [m], descending.
    """

    pairs: Pairs
    floor: float
    a: Int64s
    b: Int64s
    scores: Float32s

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def codes(self) -> tuple[Int64s, Int64s]:
        """The classes of both ends, int64 [m] each."""
        return self.pairs.a.codes[self.a], self.pairs.a.codes[self.b]

    def accepted(self, threshold: float) -> int:
        """How many pairs reach a threshold at or above the floor: they are the first of the tail."""
        return int(np.searchsorted(-self.scores, -np.float32(threshold), side="right"))

    def settled(self, threshold: float) -> Tail:
        """The same with scores around a threshold replaced by those that decisions are made on."""
        near = np.flatnonzero(np.abs(self.scores - np.float32(threshold)) <= WINDOW * scale_of(self.pairs))
        if not near.size:
            return self
        scores = self.scores.copy()
        scores[near] = exact_scores(self.pairs, self.a[near], self.b[near])
        order = np.argsort(-scores, kind="stable")
        return replace(self, a=self.a[order], b=self.b[order], scores=scores[order])


def collect(pairs: Pairs, floor: float, track: Track = silent) -> Tail:
    """Every impostor pair of a symmetric set with a score of at least ``floor``; 20 bytes a pair."""
    parts: list[tuple[Int64s, Int64s, Float32s]] = []
    for block in track(pairs.blocks(), "pairs", len(pairs.tiles)):
        rows, columns = np.nonzero((block.scores >= np.float32(floor)) & pairs.impostors(block))
        parts.append((rows + block.rows.start, columns + block.columns.start, block.scores[rows, columns]))
    none = np.zeros(0, dtype=np.int64)
    a = np.concatenate([none, *(part[0] for part in parts)])
    b = np.concatenate([none, *(part[1] for part in parts)])
    scores = np.concatenate([np.zeros(0, dtype=np.float32), *(part[2] for part in parts)])
    order = np.argsort(-scores, kind="stable")
    return Tail(pairs, floor, a[order], b[order], scores[order])


def sampled_rows(pairs: Pairs, seed: int) -> tuple[Int64s, Float32s]:
    """Positions of some queries, int64 [m], and their scores with every item, float32 [m, n];
    pairs that are no impostor pairs hold -inf."""
    n = len(pairs.a)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[: min(n, SAMPLE_ROWS)])
    similarities = (pairs.a.vectors[rows] @ pairs.a.vectors.T).clip(-1, 1)
    densities = pairs.a.densities
    scores = pairs.scorer(
        similarities,
        None if densities is None else densities[rows][:, None],
        None if densities is None else densities[None, :],
    )
    impostor = pairs.a.codes[rows][:, None] != pairs.a.codes[None, :]
    if pairs.a.groups is not None:
        impostor &= pairs.a.groups[rows][:, None] != pairs.a.groups[None, :]
    return rows, np.where(impostor, scores, np.float32(-np.inf))


def exact_scores(pairs: Pairs, a: Int64s, b: Int64s) -> Float32s:
    """Float32 [m] scores of pairs as a decision computes them: by the one kernel, from stored vectors."""
    scores = np.empty(len(a), dtype=np.float32)
    densities: NDArray[Any] | None = pairs.a.densities
    for first in range(0, len(a), EXACT_ROWS):
        i, j = a[first : first + EXACT_ROWS], b[first : first + EXACT_ROWS]
        similarities = pair_similarities(pairs.a.vectors[i], pairs.a.vectors[j])
        scores[first : first + EXACT_ROWS] = pairs.scorer(
            similarities,
            None if densities is None else densities[i],
            None if densities is None else densities[j],
        )
    return scores


def scale_of(pairs: Pairs) -> float:
    """How much a score moves per unit of similarity, at least 1."""
    densities = pairs.a.densities
    if densities is None or not len(densities):
        return 1.0
    ends = pairs.scorer(np.array([0.0, 1.0]), densities[:1], densities[:1])
    return max(1.0, float(ends[1] - ends[0]))


def accepted_pairs(pairs: Pairs, threshold: float, track: Track = silent) -> Any:
    """Accepted impostor pairs between two classes: symmetric [classes, classes] with a zero diagonal.

    Every pair is decided by its exact score: those near the threshold are scored again one by one.
    """
    n = len(pairs.classes)
    total: Any = 0.0
    near = WINDOW * scale_of(pairs)
    limit = np.float32(threshold)
    for block in track(pairs.blocks(), "pairs", len(pairs.tiles)):
        rows, columns = np.nonzero((block.scores >= limit - np.float32(near)) & pairs.impostors(block))
        scores = block.scores[rows, columns]
        rows, columns = rows + block.rows.start, columns + block.columns.start
        close = np.flatnonzero(scores <= limit + np.float32(near))
        scores[close] = exact_scores(pairs, rows[close], columns[close])
        accepted = scores >= limit
        ends = pairs.a.codes[rows[accepted]], pairs.a.codes[columns[accepted]]
        total = total + class_matrix(*ends, np.full(len(ends[0]), 2.0), n)
    return class_matrix(*(np.zeros(0, dtype=np.int64),) * 2, None, n) if isinstance(total, float) else total
