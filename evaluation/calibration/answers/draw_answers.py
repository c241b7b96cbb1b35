"""Answers of a 1:N search over galleries of several sizes, drawn from the trials of a set.

The gallery of an answer is a random choice of the classes that a query was compared with, so that one set
of trials gives answers of galleries of any size up to its own. Each query is unknown once, among classes that
are not its own, and known once, where its own takes the place of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from common.array_types import Bools, Float64s, Int64s
from evaluation.calibration.trials import UNKNOWN, Trials

FIRST, SECOND, OTHER, OF_NO_CLASS = range(4)
CELLS = 2**22  # trials that are drawn from at a time
MOST_TRIALS = 2**25  # of random queries, beyond which more say little new
MOST_QUERIES = 3_000


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers and what is true of their queries.

    Attributes:
        best, second: float64 [n], scores of the best class and of the second, -inf where there is no second.
        n_classes: int64 [n], of the gallery.
        outcomes: int64 [n]: FIRST, SECOND or OTHER for the rank of the query's class, or OF_NO_CLASS.
        classes: int64 [n], the query's class, UNKNOWN for one that is in no gallery.
    """

    best: Float64s
    second: Float64s
    n_classes: Int64s
    outcomes: Int64s
    classes: Int64s

    def __len__(self) -> int:
        return len(self.best)

    def select(self, rows: Bools) -> Answers:
        """The answers of a mask."""
        return Answers(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence[Answers]) -> Self:
        """Parts one after the other."""
        columns = (np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls))
        return cls(*columns)

    @property
    def has_second(self) -> Bools:
        """bool [n]: whether there was a second class."""
        return np.isfinite(self.second)

    def weigh(self, unknown_share: float) -> Float64s:
        """float64 [n] with the sum 1: known and unknown queries by their shares in galleries of each size,
        and all sizes alike."""
        weights = np.zeros(len(self))
        is_unknown = self.outcomes == OF_NO_CLASS
        for size in np.unique(self.n_classes):
            for side, share in ((is_unknown, unknown_share), (~is_unknown, 1 - unknown_share)):
                rows = side & (self.n_classes == size)
                weights[rows] = share / max(1, rows.sum())
        return np.asarray(weights / weights.sum())


def draw_answers(trials: Trials, sizes: Sequence[int], seed: int) -> Answers:
    """Answers of galleries of these many classes; known and unknown ones of random queries."""
    rng = np.random.default_rng([seed, 23])
    parts = []
    for size in sizes:
        for rows in _iterate_queries(trials, rng):
            parts += _draw_rows(trials, rows, int(size), rng)
    return Answers.concatenate(parts)


def _iterate_queries(trials: Trials, rng: np.random.Generator) -> Iterator[Int64s]:
    """Random queries, as many at a time as memory holds."""
    n = min(len(trials), MOST_QUERIES, max(1, MOST_TRIALS // max(1, trials.n_classes)))
    drawn = np.sort(rng.permutation(len(trials))[:n])
    height = max(1, CELLS // max(1, trials.n_classes))
    for first in range(0, n, height):
        yield drawn[first : first + height]


def _draw_rows(trials: Trials, rows: Int64s, size: int, rng: np.random.Generator) -> list[Answers]:
    """Answers of some queries, unknown and known."""
    other, own, codes = trials.other[rows], trials.own[rows], trials.codes[rows]
    keys = rng.random(other.shape, dtype=np.float32)
    keys[~np.isfinite(other)] = 2.0  # no gallery
    size = min(size, other.shape[1])
    chosen = np.argpartition(keys, size - 1, axis=1)[:, :size]
    scores = np.take_along_axis(other, chosen, axis=1).astype(np.float64)
    unknown = _build(*_find_best_two(scores), scores, np.full(len(rows), OF_NO_CLASS), codes)
    known = np.flatnonzero(np.isfinite(own) & (codes != UNKNOWN))
    rivals = scores[known]
    # the own class takes the place of one of the others; where one is none, there is room
    replaced = np.where(np.isfinite(rivals).all(axis=1), size - 1, np.argmin(rivals, axis=1))
    rivals[np.arange(len(known)), replaced] = -np.inf
    of_own = own[known].astype(np.float64)
    first, second = _find_best_two(rivals)
    outcomes = np.where(of_own > first, FIRST, np.where(of_own > second, SECOND, OTHER))
    ordered = np.sort(np.stack([of_own, first, second]), axis=0)
    rivals[np.arange(len(known)), replaced] = of_own
    return [unknown, _build(ordered[2], ordered[1], rivals, outcomes, codes[known])]


def _find_best_two(scores: Float64s) -> tuple[Float64s, Float64s]:
    """float64 [n] each, of float64 [n, m]; -inf where there is none."""
    if scores.shape[1] == 1:
        return scores[:, 0], np.full(len(scores), -np.inf)
    best = np.partition(scores, scores.shape[1] - 2, axis=1)
    return best[:, -1], best[:, -2]


def _build(best: Float64s, second: Float64s, gallery: Float64s, outcomes: Int64s, classes: Int64s) -> Answers:
    """Answers from the scores with the gallery, [n, m]; without those that were compared with nothing."""
    n_classes = np.isfinite(gallery).sum(axis=1).astype(np.int64)
    answers = Answers(best, second, n_classes, outcomes.astype(np.int64), classes)
    return answers.select(n_classes > 0)
