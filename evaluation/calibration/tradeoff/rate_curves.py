"""Rates and upper bounds of many thresholds at once, of pairs and of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from common.array_types import Float32s, Float64s, Int64s
from decision.scorers import count_reached
from evaluation.calibration.estimates.fpir_estimate import FpirEstimate
from evaluation.calibration.fpir_thresholds import GalleryPlan
from evaluation.calibration.sets.search_trials import SearchTrials
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.threshold_levels import count_accepted_per_class, cumulate_levels

LEAST_RESAMPLED = 5  # classes that a bound needs
SAME_SIZE = 0.1  # of classes; a gallery that differs by less is the set's own, where FPIR is counted


@dataclass(frozen=True, eq=False)
class ClassEvents:
    """Errors of each class at each threshold.

    Attributes:
        events: int64 [classes, k].
        totals: float64 [classes], how many there could be.
        ends: how many classes every event counts for: 2 for an impostor pair.
    """

    events: NDArray[np.int64]
    totals: Float64s
    ends: int = 1

    @property
    def rate(self) -> Float64s | None:
        """float64 [k]: over all classes together; None where there is nothing to count."""
        total = self.totals.sum()
        return np.asarray(self.events.sum(axis=0) / total) if total else None

    def bound(self, confidence: float) -> Float64s | None:
        """float64 [k]: one-sided upper bound over newly sampled classes, by the jackknife of the logarithm.

        Leaving a class out leaves out every event that it has a part in. A bound of a threshold holds for all
        higher ones, so where nothing was seen it is that of the last threshold where something was.
        """
        rate, some = self.rate, self.totals > 0
        n = int(some.sum())
        if rate is None or n < LEAST_RESAMPLED:
            return None
        events, totals = self.events[some].astype(np.float64), self.totals[some][:, None]
        left_totals = np.maximum(totals.sum() / self.ends - totals, 1.0)
        left = np.maximum(events.sum(axis=0) / self.ends - events, 0.5) / left_totals
        logs = np.log(left)
        error = np.sqrt((n - 1) / n * np.square(logs - logs.mean(axis=0)).sum(axis=0))
        quantile = float(stdtrit(n - 1, confidence))
        upper = np.where(rate > 0, rate * np.exp(np.minimum(quantile * error, 50.0)), 1.0)
        return np.minimum.accumulate(np.minimum(upper, 1.0))

    def count_over(self, level: float) -> tuple[int, Int64s]:
        """How many classes have the rate, and int64 [k] how many of these have more than ``level``."""
        some = self.totals > 0
        rates = self.events[some] / self.totals[some][:, None]
        return int(some.sum()), np.asarray((rates > level).sum(axis=0), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class PairEvents:
    """False acceptances and rejections of the pairs of a set with itself."""

    far: ClassEvents
    frr: ClassEvents

    @classmethod
    def count(cls, pairs: Pairs, thresholds: Float32s) -> PairEvents:
        """Count at thresholds float32 [k], ascending."""
        genuine, impostor = count_accepted_per_class(pairs, thresholds)
        totals = pairs.genuine_per_class
        return cls(
            ClassEvents(impostor, pairs.impostor_per_class.astype(np.float64), ends=2),
            ClassEvents(totals[:, None] - genuine, totals.astype(np.float64)),
        )


@dataclass(frozen=True, eq=False)
class QueryEvents:
    """False matches of unknown queries and misses of known ones, by the class of the query."""

    fpir: ClassEvents
    fnir: ClassEvents

    @classmethod
    def count(cls, search: SearchTrials, thresholds: Float32s) -> QueryEvents:
        """Count at thresholds float32 [k], ascending."""
        unknown, known = search.unknown, search.known
        rows = np.isfinite(unknown.best_other)
        accepted = _count_accepted(unknown.best_other[rows], unknown.groups[rows], thresholds)
        kept = _count_accepted(known.decisive[known.is_known], known.codes[known.is_known], thresholds)
        missed = ClassEvents(kept.totals.astype(np.int64)[:, None] - kept.events, kept.totals)
        return cls(accepted, missed)


@dataclass(frozen=True, eq=False)
class FpirCurve:
    """FPIR over thresholds in the gallery that is wanted, counted where that is like the one measured."""

    thresholds: Float32s
    estimate: FpirEstimate
    is_own: bool
    confidence: float

    @classmethod
    def plan(
        cls, search: SearchTrials, thresholds: Float32s, plan: GalleryPlan, confidence: float
    ) -> FpirCurve:
        """The curve of a search for the gallery of a plan."""
        known = search.known
        is_own = (
            abs(plan.wanted.classes / known.n_classes - 1) <= SAME_SIZE
            and abs(plan.wanted.items / known.gallery_items - 1) <= 3 * SAME_SIZE
        )
        estimate = FpirEstimate(search.unknown, search.pool, plan.power)
        return cls(thresholds, estimate, is_own, confidence)

    def compute(self, counted: Float64s) -> Float64s:
        """float64 [k], from what was counted."""
        if self.is_own:
            return counted
        return np.minimum.accumulate([self.estimate.compute(float(at)) for at in self.thresholds])

    def compute_of_group(self, counted: Float64s) -> Float64s:
        """float64 [k]: what was counted of a group, extended to the gallery as all queries are."""
        if self.is_own:
            return counted
        growth = self.estimate.growth
        return np.asarray(-np.expm1(growth * np.log1p(-np.minimum(counted, 1 - 1e-12))))

    def bound(self, fpir: Float64s) -> Float64s:
        """float64 [k]: its one-sided upper bound."""
        upper = [
            self.estimate.compute_interval(float(at), self.confidence).upper_bound for at in self.thresholds
        ]
        return np.minimum.accumulate(np.maximum(upper, fpir))


def _count_accepted(scores: Float32s, groups: Int64s, thresholds: Float32s) -> ClassEvents:
    """Scores that reach each threshold, by group."""
    numbers = np.unique(groups, return_inverse=True)[1]
    n, width = (int(numbers.max()) + 1 if len(numbers) else 0), len(thresholds) + 1
    levels = np.bincount(numbers * width + count_reached(scores, thresholds), minlength=n * width)
    totals = np.bincount(numbers, minlength=n).astype(np.float64)
    return ClassEvents(cumulate_levels(levels.reshape(n, width).astype(np.int64)), totals)
