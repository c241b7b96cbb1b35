"""The FPIR of a threshold, estimated rather than bounded, and the threshold for a wanted one.

An *anchor* is counted: the queries whose best score reaches a level that ANCHORED of them or more reach.
They are unknown to the gallery: each class left out in turn, a cohort of other people, or real unknown
queries. Above the level the rate falls as the match rate of one class does (``impostor_rate.py``), which many
more trials tell: ``FPIR(t) = FPIR(u) p(t) / p(u)``.

Other sizes of gallery. Matches of one query come together: with p(q) the chance that one class matches query
q, ``1 - FPIR_G = E[(1-p(q))^G]``. For p(q) with a beta distribution of intraclass correlation r and few
matches ``-log(1 - FPIR_G) = p log(1 + G r) / r`` (beta-binomial), where a bound has ``G p`` (Jensen). r is
measured where the anchor is: from the FPIR and the match rate counted there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaincinv, stdtrit

from common.array_types import Float32s, Float64s
from common.errors import CalibrationRefused
from decision.scorers import accepts
from evaluation.calibration.bootstrap_bounds import Interval, estimate_class_fraction_interval
from evaluation.calibration.estimates.impostor_rate import ImpostorRate, compute_widest_rate
from evaluation.calibration.fpir_thresholds import build_candidates
from evaluation.calibration.pair_thresholds import find_last_true
from evaluation.calibration.trials import Trials
from evaluation.metrics.class_bootstrap import draw_classes

ANCHORED = 96  # queries whose matches are counted, unless there are few
MOST_ANCHORED = 0.25  # of the queries
SHRINKAGE = 30.0  # trials of all classes that the anchor's own excess is averaged with
SPARE = 1.2  # of the rate down to which trials are collected
FEW_GROUPS = 5  # classes below which queries are resampled
DOUBT = 0.02  # chance that what is counted is taken for more than the tail


@dataclass(frozen=True, eq=False)
class FpirEstimate:
    """FPIR at any threshold for a gallery of ``power`` classes like those measured.

    Attributes:
        anchor: trials of unknown queries with a gallery; of known ones, each class in turn is left out.
        pool: trials that tell how match rates fall: the same, or many more.
        power: how many classes of the kind measured the wanted gallery counts for.
    """

    anchor: Trials
    pool: Trials
    power: float

    def find_threshold(self, fpir: float) -> float:
        """The lowest threshold, of the scores seen and others between and beyond, with at most this FPIR.

        Raises:
            CalibrationRefused: ties or copies leave none.
        """
        wanted = f"FPIR {fpir:g} in a gallery of {self.power:.0f} classes"
        ranked = self.rate.ranked
        self.rate.check(-float(np.expm1(np.log1p(-fpir) / self.power)), wanted)
        high = float(max(self.best[-1], ranked.scores[0]))
        finite = self.best[np.isfinite(self.best)].astype(np.float64)
        tried = np.concatenate([build_candidates(ranked.scores, ranked.coordinate), finite])
        candidates = np.unique(np.minimum(tried, ranked.coordinate.highest).astype(np.float32))
        last = len(candidates) - 1
        if self.compute(float(candidates[last])) > fpir:
            raise CalibrationRefused(
                f"Ties or duplicates across classes leave no threshold with {wanted}: the highest score of "
                f"an unknown query is {high:.7g}; items that are stored under two labels should be "
                "removed, or the target raised."
            )
        if self.compute(float(candidates[0])) <= fpir:
            return float(candidates[0])
        missed = find_last_true(lambda k: self.compute(float(candidates[k])) > fpir, 0, len(candidates))
        return float(candidates[missed + 1])

    @cached_property
    def rate(self) -> ImpostorRate:
        """The match rate of one class."""
        widest = compute_widest_rate(self.pool.n_classes)
        ranked = self.pool.collect_top(SPARE * widest)
        if len(ranked.scores) and ranked.scores[-1] > self.level:
            ranked = self.pool.collect_above(self.level)
        return ImpostorRate(ranked, widest)

    @cached_property
    def best(self) -> Float32s:
        """float32, ascending: best scores of unknown queries."""
        return np.sort(self.anchor.best_other)

    @cached_property
    def measured_classes(self) -> float:
        """Classes that an unknown query was compared with, on average."""
        return self.anchor.n_trials / max(1, len(self.anchor))

    @cached_property
    def level(self) -> float:
        """The score down from which the anchor is counted."""
        counted = int(np.clip(ANCHORED, 1, max(1.0, MOST_ANCHORED * len(self.best))))
        return float(self.best[-counted])

    @cached_property
    def excess(self) -> float | None:
        """Mean excess of the tail: the pool's, averaged with the anchor's own where that is another set."""
        if self.anchor is self.pool:
            return None
        start = max(self.level, self.rate.start)
        own = self.anchor.collect_above(start).scores
        above = self.pool.collect_above(start).scores
        if not len(own) or not len(above):
            return None
        low = self.rate.locate(start)
        of_own, of_pool = (float(np.mean(self.rate.ranked.coordinate(s) - low)) for s in (own, above))
        usual = self.rate.excess if len(above) < SHRINKAGE else of_pool
        return (SHRINKAGE * usual + len(own) * of_own) / (SHRINKAGE + len(own))

    @cached_property
    def growth(self) -> float:
        """How the logarithm of 1 - FPIR grows from the measured gallery to the wanted one."""
        wanted, measured = self.power, self.measured_classes
        fpir = float(np.mean(accepts(self.best, self.level)))
        rate = self.anchor.collect_above(self.level).compute_match_rate(self.level)
        ratio = -np.log1p(-min(fpir, 1 - 1e-9)) / (measured * -np.log1p(-min(rate, 1 - 1e-9)))
        correlation = find_correlation(ratio, measured)
        if correlation < 1e-9:
            return wanted / measured
        return float(np.log1p(wanted * correlation) / np.log1p(measured * correlation))

    def compute(self, threshold: float) -> float:
        """The FPIR at a threshold, of the wanted gallery."""
        if threshold <= self.level:
            measured = float(np.mean(accepts(self.best, threshold)))
        else:
            counted = float(np.mean(accepts(self.best, self.level)))
            measured = counted * self.rate.compute_ratio(self.level, threshold, self.excess)
            measured = max(measured, self._count_at_least(threshold))
        return self._extend(measured)

    def _count_at_least(self, threshold: float) -> float:
        """What the queries that match say against the tail: a lower bound, by the classes they are of."""
        matched = accepts(self.anchor.best_other, threshold)
        classes = len(np.unique(self.anchor.groups[matched]))
        return float(matched.mean() * gammaincinv(classes, DOUBT) / classes) if classes else 0.0

    def _extend(self, fpir: float) -> float:
        return float(-np.expm1(self.growth * np.log1p(-min(fpir, 1 - 1e-12))))

    def compute_interval(self, threshold: float, confidence: float) -> Interval:
        """The FPIR with its interval, on the scale of logarithms: of the anchor, and of the tail above it."""
        estimate = self.compute(threshold)
        if not estimate:
            return Interval(0.0, 0.0, 0.0, 0.0)
        level = min(self.level, threshold)
        variance = measure_log_variance(self.anchor, level, leaves_classes=self.anchor is self.pool)
        if threshold > level and self.rate.excess > 0:
            followed = (self.rate.locate(threshold) - self.rate.locate(level)) / self.rate.excess
            variance += followed**2 * self.rate.measure_log_variance()
        freedom = max(1, len(np.unique(self.anchor.groups)) - 1)
        two_sided, one_sided = stdtrit(freedom, [(1 + confidence) / 2, confidence])
        error = np.sqrt(variance)
        return Interval.around(
            estimate,
            estimate * float(np.exp(-two_sided * error)),
            min(1.0, estimate * float(np.exp(min(two_sided * error, 50.0)))),
            min(1.0, estimate * float(np.exp(min(one_sided * error, 50.0)))),
        )


def measure_log_variance(trials: Trials, level: float, *, leaves_classes: bool) -> float:
    """Variance of the logarithm of a counted FPIR over newly sampled classes: the jackknife.

    Leaving a class out leaves out its queries and, with ``leaves_classes``, what matched it alone. Of real
    unknown queries with few labels nobody knows who belongs together: these are left out one by one.
    """
    groups = np.unique(trials.groups, return_inverse=True)[1]
    if groups.max() < FEW_GROUPS and not leaves_classes:
        groups = np.arange(len(trials))
    n = int(groups.max()) + 1
    matched = accepts(trials.best_other, level)
    totals = np.bincount(groups, minlength=n).astype(np.float64)
    events = np.bincount(groups, matched, minlength=n).astype(np.float64)
    if leaves_classes and n == trials.n_classes:
        rows = np.flatnonzero(matched)
        reached = accepts(trials.other[rows], level)
        alone = np.flatnonzero(reached.sum(axis=1) == 1)
        events += np.bincount(reached[alone].argmax(axis=1), minlength=n)
    total = float(matched.sum())
    left = np.maximum((total - events) / np.maximum(len(trials) - totals, 1.0), 0.5 / len(trials))
    return float((n - 1) / n * np.square(np.log(left) - np.log(left).mean()).sum())


def find_correlation(ratio: float, classes: float) -> float:
    """The intraclass correlation r with ``log(1 + G r) / (G r)`` equal to a ratio, for G classes; 0 for 1."""
    if ratio >= 1:
        return 0.0
    from scipy.optimize import brentq  # slow to import

    def compute_excess(r: float) -> float:
        return float(np.log1p(classes * r) / (classes * r) - ratio)

    return 1.0 if compute_excess(1.0) > 0 else float(brentq(compute_excess, 1e-12, 1.0))


def resample_queries(events: Float64s, trials: Trials, confidence: float) -> Interval:
    """Interval of a fraction of queries, from resampling their classes; where these are few, the queries."""
    groups = np.unique(trials.groups, return_inverse=True)[1]
    if groups.max() < FEW_GROUPS:
        groups = np.arange(len(events))
    sums = np.bincount(groups, events).astype(np.float64)
    totals = np.bincount(groups).astype(np.float64)
    return estimate_class_fraction_interval(sums, totals, draw_classes(len(sums), 0), confidence)
