"""Trials of a 1:N search: the score of every query with every class of a gallery, before the best is taken.

A 1:N rule (``SearchRule``) makes one score of a query and all items of a class. Every figure of a search at
any threshold follows from these scores, so they are computed once, whatever thresholds are chosen on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from common.array_types import Bools, Float32s, Float64s, Int64s
from common.progress import Track
from decision.scorers import accepts, count_accepted
from evaluation.calibration.fit_probability import LabelledScores
from evaluation.pairs.pairs import Pairs

STRAIGHT = 0.95
LABELLED = 100_000  # trials with another class that a probability is fitted on
LABELLED_STREAM = 5
UNKNOWN = -1  # the code of a query whose class is in no gallery


class Coordinate(Protocol):
    """Ascending in the score; the tail of unknown queries' scores is exponential in it."""

    @property
    def is_of_similarities(self) -> bool:
        """Whether scores are similarities, at most 1."""
        ...

    @property
    def highest(self) -> float:
        """The score above which no threshold lies: the least of copies, which are never refused."""
        ...

    def __call__(self, scores: Float64s) -> Float64s: ...


@dataclass(frozen=True, eq=False)
class Trials:
    """Scores of queries with the classes of a gallery.

    Attributes:
        other: float32 [queries, classes], with every class but the query's own; -inf where there is no score.
        own: float32 [queries], with the query's own class, the query itself left out of it; -inf if none.
        codes: int64 [queries]: the query's class, a column of ``other``, or UNKNOWN.
        gallery_items: items of all the classes together, of which a query was compared with others' alone.
        coordinate: of the tail of ``other``.
        of_unknown: int64 [queries]: which queries are of one class, where that is in no gallery.
    """

    other: Float32s
    own: Float32s
    codes: Int64s
    gallery_items: int
    coordinate: Coordinate
    of_unknown: Int64s | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_classes(self) -> int:
        """Classes of the gallery, a known query's own included."""
        return int(self.other.shape[1])

    @property
    def groups(self) -> Int64s:
        """int64 [queries]: queries of one class share a number."""
        return self.codes if self.of_unknown is None else self.of_unknown

    @cached_property
    def queries_per_class(self) -> Float64s:
        """float64 [classes]: known queries."""
        known = self.codes[self.codes != UNKNOWN]
        return np.bincount(known, minlength=self.n_classes).astype(np.float64)

    @property
    def n_trials(self) -> int:
        """Every query is unknown to every class but its own."""
        return len(self) * self.n_classes - int(self.queries_per_class.sum())

    @cached_property
    def best_other(self) -> Float32s:
        """float32 [queries]: the best score with any class but the query's own, as if that were unknown."""
        if not self.n_classes:
            return np.full(len(self), -np.inf, dtype=np.float32)
        best: Float32s = self.other.max(axis=1)
        return best

    @cached_property
    def decisive(self) -> Float32s:
        """float32 [queries]: a known query is answered right at thresholds up to this score; -inf if at none.

        Where another class scores as high, the answer is wrong at every threshold.
        """
        return np.where(self.own > self.best_other, self.own, np.float32(-np.inf))

    @property
    def is_known(self) -> Bools:
        """bool [queries]: the query's class has other items."""
        return np.isfinite(self.own)

    def measure_fpir(self, threshold: float) -> float | None:
        """The fraction of queries that match another class; None where there is none to match."""
        if not np.isfinite(self.best_other).any():
            return None
        return float(np.mean(accepts(self.best_other, threshold)))

    def measure_fnir(self, threshold: float) -> float | None:
        """The fraction of known queries without an answer or with a wrong one."""
        known = self.is_known
        return float(1 - np.mean(accepts(self.decisive[known], threshold))) if known.any() else None

    def select_queries(self, rows: Bools | Int64s) -> Trials:
        """The trials of some queries with all classes."""
        return replace(
            self,
            other=self.other[rows],
            own=self.own[rows],
            codes=self.codes[rows],
            of_unknown=None if self.of_unknown is None else self.of_unknown[rows],
        )

    def leave_copies_out(self) -> Trials:
        """Without queries that are copies of an item: scores far above all others say nothing of these.

        All of them where nothing else is left, and where copies have no score of their own.
        """
        is_copy = np.maximum(self.own, self.best_other) >= self.coordinate.highest
        return self.select_queries(~is_copy) if is_copy.any() and not is_copy.all() else self

    def select_classes(self, kept: Bools) -> Trials:
        """The trials among some classes, bool [classes]; queries of other classes are left out."""
        numbers = np.cumsum(kept) - 1
        rows = np.flatnonzero((self.codes == UNKNOWN) | kept[self.codes])
        codes = self.codes[rows]
        return Trials(
            other=self.other[np.ix_(rows, np.flatnonzero(kept))],
            own=self.own[rows],
            codes=np.where(codes == UNKNOWN, UNKNOWN, numbers[codes]),
            gallery_items=round(self.gallery_items * self._weigh(kept)),
            coordinate=self.coordinate,
            of_unknown=None if self.of_unknown is None else self.of_unknown[rows],
        )

    def _weigh(self, kept: Bools) -> float:
        """The part of the gallery's items that some classes have, by their queries."""
        total = self.queries_per_class.sum()
        return float(self.queries_per_class[kept].sum() / total) if total else float(kept.mean())

    def collect_top(self, rate: float) -> RankedScores:
        """At least the highest ``rate`` of all trials with another class, or as many as there are."""
        wanted = min(int(rate * self._n_finite) + 1, self._n_finite)
        if not self._collected or len(self._collected[-1].scores) < wanted:
            lowest = np.inf
            if wanted:
                flat = self.other.ravel()
                lowest = float(np.partition(flat, flat.size - wanted)[flat.size - wanted])
            self._collected[:] = [self.collect_above(lowest)]
        return self._collected[-1]

    @cached_property
    def _n_finite(self) -> int:
        return int(np.count_nonzero(np.isfinite(self.other)))

    @cached_property
    def _collected(self) -> list[RankedScores]:
        return []

    def collect_above(self, floor: float) -> RankedScores:
        """Every trial of a query and another class with a score of at least ``floor``, highest first."""
        rows, columns = np.nonzero(accepts(self.other, floor))
        scores = self.other[rows, columns]
        order = np.argsort(-scores, kind="stable")
        return RankedScores(
            query=self.codes[rows][order],
            gallery=columns[order],
            scores=scores[order].astype(np.float64),
            trials=self.n_trials,
            queries=self.queries_per_class,
            items=np.ones(self.n_classes),
            weight=1.0,
            coordinate=self.coordinate,
        )


@dataclass(frozen=True, eq=False)
class RankedScores:
    """The highest scores of impostors, highest first, each between two classes.

    Impostors are trials of a query with a class that is not its own, or pairs of items (``rank_pairs``).

    Attributes:
        query, gallery: int64 [m], the classes of both ends.
        scores: float64 [m].
        trials: how many there are in all.
        queries, items: float64 [classes]: what each class brings to either end.
        weight: how often each counts among the ordered pairs of classes: 1 for trials, 2 for pairs of items.
        coordinate: in which their tail is exponential.
    """

    query: Int64s
    gallery: Int64s
    scores: Float64s
    trials: int
    queries: Float64s
    items: Float64s
    weight: float
    coordinate: Coordinate

    @property
    def n_classes(self) -> int:
        return len(self.queries)

    def count_matched(self, threshold: float) -> int:
        """Trials whose score reaches a threshold: the first of the scores."""
        return int(count_accepted(self.ascending, threshold))

    @cached_property
    def ascending(self) -> Float32s:
        """float32 [m]: the scores the other way round, as decisions compare them."""
        return np.ascontiguousarray(self.scores[::-1].astype(np.float32))

    def compute_match_rate(self, threshold: float) -> float:
        """Fraction of trials matched, counted."""
        return self.count_matched(threshold) / self.trials

    def find_score(self, rate: float) -> float:
        """The score that about this fraction of trials reaches."""
        return float(self.scores[min(int(rate * self.trials), len(self.scores) - 1)])


@dataclass(frozen=True)
class SearchRule:
    """A 1:N rule: how the items of a class make one score of a query with the class.

    Attributes:
        description, scores_name: in words, for the record: the rule, and the scores it makes.
        is_of_pairs: whether its threshold is also one of pairs, so that FAR, FRR and OPIS have a meaning.
        compute_start_rate: from a match rate and the number of classes to the rate at which a tail that
            is extrapolated there starts.
        score_trials: the trials of a set against itself, each query left out of its own class, or of queries
            against a gallery (``arrange(queries, gallery=...)``).
        sample_labelled: labelled scores that a probability of a match is fitted on, with a seed.
        score_tracks: the trials of queries of several vectors, that many consecutive rows each; without it
            the mean of the vectors' scores.
    """

    description: str
    scores_name: str
    is_of_pairs: bool
    compute_start_rate: Callable[[float, int], float]
    score_trials: Callable[[Pairs, Track], Trials]
    sample_labelled: Callable[[Pairs, Trials, int], LabelledScores]
    score_tracks: Callable[[Pairs, int, Track], Trials] | None = None


def sample_labelled_trials(pairs: Pairs, trials: Trials, seed: int) -> LabelledScores:
    """Every score with the own class and a random part of those with others, with the ground truth."""
    trials = trials.leave_copies_out()
    rng = np.random.default_rng([seed, LABELLED_STREAM])
    drawn = min(1.0, LABELLED / max(1, trials.other.size))
    rows, columns = np.nonzero(np.isfinite(trials.other) & (rng.random(trials.other.shape) < drawn))
    known = trials.is_known
    genuine = trials.own[known]
    codes = trials.codes[known]
    return LabelledScores(
        scores=np.concatenate([genuine, trials.other[rows, columns]]).astype(np.float64),
        genuine=np.repeat([True, False], [len(genuine), len(rows)]),
        first=np.concatenate([codes, trials.codes[rows]]),
        second=np.concatenate([codes, columns]),
    )


def number_gallery_classes(pairs: Pairs) -> tuple[Int64s, Int64s]:
    """The classes with items in the gallery, int64 [c], and each query's position among them or UNKNOWN."""
    columns = np.flatnonzero(pairs.b.sizes)
    numbers = np.full(len(pairs.classes), UNKNOWN, dtype=np.int64)
    numbers[columns] = np.arange(len(columns))
    return columns, numbers[pairs.a.codes]


@dataclass(frozen=True)
class TailCoordinate:
    """The coordinate in which tails are exponential, of scores ``low + (high - low) * similarity``.

    For similarities ``y(s) = -log(1 - s^2)``, in which the caps of a sphere have an exponential tail in any
    dimension. Scores corrected by densities may lie beyond the score of similarity 1: from ``straight`` on
    the coordinate is continued as a straight line, which errs on the safe side.
    """

    low: float
    high: float
    straight: float

    @classmethod
    def fit(cls, pairs: Pairs) -> TailCoordinate:
        """The scale of a scorer at the mean density of the items."""
        if pairs.scorer.is_similarity or pairs.a.densities is None:
            return cls(0.0, 1.0, 1 - 1e-9)
        middle = np.full(2, pairs.a.densities.mean())
        low, high = pairs.scorer(np.array([0.0, 1.0]), middle, middle).astype(np.float64)
        return cls(float(low), float(high), STRAIGHT)

    @property
    def is_of_similarities(self) -> bool:
        return (self.low, self.high) == (0.0, 1.0) and self.straight > STRAIGHT

    @property
    def highest(self) -> float:
        return np.inf

    def __call__(self, scores: Float64s) -> Float64s:
        """float, the shape of ``scores``, ascending with them."""
        similar = np.maximum((scores - self.low) / (self.high - self.low), 0.0)
        inside = np.minimum(similar, self.straight)
        slope = 2 * self.straight / (1 - self.straight**2)
        return np.asarray(-np.log1p(-(inside**2)) + slope * (similar - inside))


class PlainCoordinate:
    """The score itself, for log-odds, whose tail is exponential as they are."""

    is_of_similarities = False
    highest = np.inf

    def __call__(self, scores: Float64s) -> Float64s:
        return scores
