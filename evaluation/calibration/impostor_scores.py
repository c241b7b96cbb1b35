"""Scores of impostor pairs: a random sample, the highest of all, and exact ones near a threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from common.array_types import Float32s, Int64s
from common.progress import Track, silent
from decision.scorers import accepts, count_accepted
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.bootstrap_bounds import build_class_matrix
from evaluation.calibration.trials import Coordinate, RankedScores
from evaluation.pairs.pairs import Pairs

WINDOW = 2e-5  # relative to the scale of scores, far above the rounding of a float32 product
SAMPLE_ROWS = 1000
LEAST_ROWS = 200  # where a row is long
SAMPLE_PAIRS = 5_000_000
EXACT_ROWS = 1 << 16


# -- a random sample ---------------------------------------------------------------------------------
def sample_rows(pairs: Pairs, seed: int) -> tuple[Int64s, Float32s]:
    """Positions of random queries, int64 [m], and their scores with every item, float32 [m, n];
    pairs that are no impostor pairs hold -inf."""
    items = pairs.a
    wanted = max(LEAST_ROWS, min(SAMPLE_ROWS, SAMPLE_PAIRS // len(items)))
    rows = np.sort(np.random.default_rng(seed).permutation(len(items))[:wanted])
    similarities = (items.vectors[rows] @ items.vectors.T).clip(-1, 1)
    scores = pairs.score_rectangle(similarities, rows, slice(None))
    impostor = items.codes[rows][:, None] != items.codes[None, :]
    impostor &= ~pairs.is_within_group(rows, slice(None))
    return rows, np.where(impostor, scores, np.float32(-np.inf))


def sample_impostor_scores(pairs: Pairs, seed: int) -> Float32s:
    """float32, descending: the scores of the impostor pairs of random queries."""
    _, scores = sample_rows(pairs, seed)
    return -np.sort(-scores[np.isfinite(scores)])


def sample_impostors(pairs: Pairs, n: int, seed: int, stream: int) -> tuple[Int64s, Int64s, Float32s]:
    """At most n random impostor pairs: positions of both ends and scores; each stream draws other pairs."""
    rows, scores = sample_rows(pairs, seed)
    i, j = np.nonzero(np.isfinite(scores))
    drawn = np.random.default_rng([seed, stream]).permutation(len(i))[:n]
    i, j = i[drawn], j[drawn]
    return rows[i], j, scores[i, j]


# -- the highest -------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ImpostorTail:
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

    def count_accepted(self, threshold: float) -> int:
        """Number of pairs that reach a threshold at or above the floor: they are the first of the tail."""
        return int(count_accepted(self.ascending, threshold))

    @cached_property
    def ascending(self) -> Float32s:
        """float32 [m]: the scores the other way round."""
        return np.ascontiguousarray(self.scores[::-1])

    def rescore_near(self, threshold: float) -> ImpostorTail:
        """The same with scores around a threshold replaced by those that decisions are made on."""
        window = compute_window(self.pairs)
        first = self.count_accepted(float(np.nextafter(np.float32(threshold + window), np.float32(np.inf))))
        last = self.count_accepted(threshold - window)
        if first == last:
            return self
        near = slice(first, last)
        exact = compute_exact_scores(self.pairs, self.a[near], self.b[near])
        order = first + np.argsort(-exact, kind="stable")
        a, b, scores = self.a.copy(), self.b.copy(), self.scores.copy()
        a[near], b[near], scores[near] = self.a[order], self.b[order], exact[order - first]
        return replace(self, a=a, b=b, scores=scores)


def collect_tail(pairs: Pairs, floor: float, track: Track = silent) -> ImpostorTail:
    """Every impostor pair of a symmetric set with a score of at least ``floor``; 20 bytes a pair."""
    nothing = np.zeros(0, dtype=np.int64)
    parts = [(nothing, nothing, np.zeros(0, dtype=np.float32))]
    for block in track(pairs.iterate_blocks(), "pairs", len(pairs.tiles)):
        rows, columns = np.nonzero(accepts(block.scores, floor) & pairs.mask_impostors(block))
        parts.append((rows + block.rows.start, columns + block.columns.start, block.scores[rows, columns]))
    a, b, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")
    return ImpostorTail(pairs, floor, a[order], b[order], scores[order])


def rank_pairs(tail: ImpostorTail, coordinate: Coordinate) -> RankedScores:
    """The pairs of a tail, as scores between two classes."""
    sizes = tail.pairs.a.sizes.astype(np.float64)
    first, second = tail.codes
    scores = tail.scores.astype(np.float64)
    return RankedScores(first, second, scores, tail.pairs.n_impostor, sizes, sizes, 2.0, coordinate)


# -- exact ones near a threshold ---------------------------------------------------------------------
def compute_exact_scores(pairs: Pairs, a: Int64s, b: Int64s) -> Float32s:
    """float32 [m] scores of pairs as a decision computes them: by the one kernel, from stored vectors."""
    scores = np.empty(len(a), dtype=np.float32)
    densities = pairs.a.densities
    for first in range(0, len(a), EXACT_ROWS):
        i, j = a[first : first + EXACT_ROWS], b[first : first + EXACT_ROWS]
        similarities = compute_pair_similarities(pairs.a.vectors[i], pairs.a.vectors[j])
        scores[first : first + EXACT_ROWS] = pairs.scorer(
            similarities,
            None if densities is None else densities[i],
            None if densities is None else densities[j],
        )
    return scores


def count_accepted_pairs(pairs: Pairs, threshold: float, track: Track = silent) -> Any:
    """Accepted impostor pairs between two classes: symmetric [classes, classes] with a zero diagonal.

    Every pair is decided by its exact score: those near the threshold are scored again pair by pair.
    """
    n = len(pairs.classes)
    nothing = np.zeros(0, dtype=np.int64)
    total: Any = build_class_matrix(nothing, nothing, None, n)
    limit, near = np.float32(threshold), np.float32(compute_window(pairs))
    for block in track(pairs.iterate_blocks(), "pairs", len(pairs.tiles)):
        rows, columns = np.nonzero((block.scores >= limit - near) & pairs.mask_impostors(block))
        scores = block.scores[rows, columns]
        rows, columns = rows + block.rows.start, columns + block.columns.start
        close = np.flatnonzero(scores <= limit + near)
        scores[close] = compute_exact_scores(pairs, rows[close], columns[close])
        accepted = accepts(scores, threshold)
        ends = pairs.a.codes[rows[accepted]], pairs.a.codes[columns[accepted]]
        total = total + build_class_matrix(*ends, np.full(len(ends[0]), 2.0), n)
    return total


def count_pairs_of_tail(tail: ImpostorTail, threshold: float) -> Any:
    """The same from the highest pairs, where they reach WINDOW below the threshold."""
    exact = tail.rescore_near(threshold)
    count = exact.count_accepted(threshold)
    first, second = exact.codes
    return build_class_matrix(first[:count], second[:count], np.full(count, 2.0), len(tail.pairs.classes))


def compute_window(pairs: Pairs) -> float:
    """Distance from a threshold within which a float32 product may be on its wrong side, amply."""
    densities = pairs.a.densities
    if densities is None or not len(densities):
        return WINDOW
    ends = pairs.scorer(np.array([0.0, 1.0]), densities[:1], densities[:1])
    return WINDOW * max(1.0, float(ends[1] - ends[0]))
