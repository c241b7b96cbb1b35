"""The match rate of one class and an unknown query, counted and extrapolated by an exponential tail.

At the levels that matter only a few pairs of classes match, so the rate is not counted at the
threshold but extrapolated there from a lower score u: ``p(t) = p(u) exp(-(y(t)-y(u))/m)``, m the mean excess
over y(u), the exponential tail of peaks over a threshold (Pickands 1975; Davison & Smith 1990). For
similarities ``y(s) = -log(1 - s^2)``, in which the caps of a sphere have an exponential tail in any
dimension; other scores are first brought to the scale of similarities. Lighter tails err on the safe
side. Heavier ones, as lookalike classes make them, do not: the start u is moved up, each time to half
the rate, until no rate counted above it exceeds the extrapolated one by more than chance explains
(a one-sided test with the class-resampled variance; choosing the start by a sequence of tests: Bader,
Yan & Zhang 2018). At a threshold where more is counted than that, what is counted is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.array_types import Float32s, Float64s, Int64s
from common.progress import Track
from decision.scorers import count_accepted
from evaluation.calibration.bootstrap_bounds import Interval, PairFractions, build_class_matrix
from evaluation.calibration.fit_probability import LabelledScores
from evaluation.calibration.impostor_scores import ImpostorTail
from evaluation.calibration.pair_thresholds import find_support
from evaluation.pairs.pairs import Pairs

MATCHED = 250  # pairs of classes, matched by every query, that a tail is extrapolated from
STEEPEST = 350.0  # the furthest it is extrapolated, as a ratio of match rates
LEAST = 1.5  # it starts at least this much above the target
MOST = 0.05  # and at no higher rate, above which there is no tail
DOUBT = 0.01  # chance to take an exponential tail for a heavier one, per rate tested
STRAIGHT = 0.95


@dataclass(frozen=True, eq=False)
class UnknownQueries:
    """Trials of an unknown query with one class: its score with the class, above a floor, highest first.

    Attributes:
        query, gallery: int64 [m], classes of the query and of the gallery's item.
        scores: float64 [m].
    """

    tail: ImpostorTail
    query: Int64s
    gallery: Int64s
    scores: Float64s

    @property
    def trials(self) -> int:
        """Every item is an unknown query to every other class once."""
        return len(self.tail.pairs.a) * (len(self.tail.pairs.classes) - 1)

    def count_matched(self, threshold: float) -> int:
        """Trials whose score reaches a threshold: the first of the scores."""
        return int(count_accepted(self.scores[::-1], threshold))

    def compute_match_rate(self, threshold: float) -> float:
        """Fraction of trials matched, counted."""
        return self.count_matched(threshold) / self.trials

    def find_score(self, rate: float) -> float:
        """The score that about this fraction of trials reaches."""
        return float(self.scores[min(int(rate * self.trials), len(self.scores) - 1)])


def collect_rate(
    collect_above: Callable[[float], UnknownQueries], sample: NDArray[np.floating], rate: float, wanted: float
) -> UnknownQueries:
    """The trials down to a score that at least ``rate`` of them reach, or as far as the sample goes.

    Args:
        sample: float, descending, scores of random trials.
        wanted: the part of the sample to begin with, a little more than the rate.
    """
    while True:
        position = min(int(wanted * len(sample)), len(sample) - 1)
        unknown = collect_above(float(sample[position]))
        if len(unknown.scores) >= rate * unknown.trials or position == len(sample) - 1:
            return unknown
        wanted *= 2


@dataclass(frozen=True)
class SearchRule:
    """A 1:N rule: how the items of a class make one score of a query with the class.

    Attributes:
        description, scores_name: in words, for the record: the rule, and the scores it makes.
        is_of_pairs: whether its threshold is also one of pairs, so that FAR, FRR and OPIS have a meaning.
        compute_start_rate: from a match rate and the number of classes to the rate at which a tail that
            is extrapolated there starts.
        collect: trials down to a score that at least a given rate of them reach, or as far as they go.
        collect_above: every trial with a score of at least a floor.
        compute_best: float32 [n] each: a query's score with its own class and its best with any other,
            -inf if none.
        sample_labelled: labelled scores that a probability is fitted on, with a seed.
    """

    description: str
    scores_name: str
    is_of_pairs: bool
    compute_start_rate: Callable[[float, int], float]
    collect: Callable[[Pairs, float, int, Track], UnknownQueries]
    collect_above: Callable[[Pairs, float, Track], UnknownQueries]
    compute_best: Callable[[Pairs, Track], tuple[Float32s, Float32s]]
    sample_labelled: Callable[[Pairs, int], LabelledScores]


class MatchRateTail:
    """The match rate as a function of the threshold, from score ``start`` on, with its interval."""

    def __init__(self, unknown: UnknownQueries, start: float, weights: Float64s) -> None:
        self.coordinate = TailCoordinate.fit(unknown.tail.pairs)
        self.start = start
        self.unknown = unknown
        self.weights = weights
        count = unknown.count_matched(start)
        excess = self.coordinate(unknown.scores[:count]) - self.coordinate(np.array([start]))
        self.matrices = [self._build_matrix(count, None), self._build_matrix(count, excess)]
        self.fractions = self._build_fractions(self.matrices, weights)
        self.has_tail = bool(self.fractions.values[1] > 0)

    def compute_interval(self, threshold: float, confidence: float) -> Interval:
        """Match rate at a threshold at or above ``start``: extrapolated, or counted where more is matched
        than the tail can explain."""
        beyond = self._measure_beyond(threshold)
        rate, excess = self.fractions.values
        if beyond <= 0 or not self.has_tail:
            return self.fractions.compute_interval(lambda f: f[0], np.array([1.0, 0.0]), confidence)
        if self.is_too_light(threshold):
            matrix = self._build_matrix(self.unknown.count_matched(threshold), None)
            counted = self._build_fractions([matrix], self.weights)
            return counted.compute_interval(lambda f: f[0], np.ones(1), confidence)
        extrapolated = float(rate * np.exp(-beyond * rate / excess))
        gradient = extrapolated * np.array([1 / rate - beyond / excess, beyond * rate / excess**2])
        return self.fractions.compute_interval(lambda f: _extrapolate(f, beyond), gradient, confidence)

    def is_too_light(self, score: float) -> bool:
        """Whether the rate counted at a higher score exceeds the extrapolated one by more than chance."""
        beyond = self._measure_beyond(score)
        rate, excess = self.fractions.values
        matched = self.unknown.count_matched(score)
        if beyond <= 0 or not self.has_tail or not matched:
            return False
        counted = matched / self.unknown.trials
        # the logarithm of counted over extrapolated, and its derivative, as one matrix over pairs of classes
        difference = np.log(counted / rate) + beyond * rate / excess
        change = (
            self._build_matrix(matched, None) / counted
            - self.matrices[0] * (1 / rate - beyond / excess)
            - self.matrices[1] * (beyond * rate / excess**2)
        )
        fractions = self._build_fractions([change], np.ones((1, self.fractions.n)))
        error = np.sqrt(sum(fractions.compute_variance(np.ones(1))))
        return bool(difference > stats.norm.ppf(1 - DOUBT) * error)

    def _measure_beyond(self, score: float) -> float:
        return float(np.diff(self.coordinate(np.array([self.start, score])))[0])

    def _build_matrix(self, count: int, amounts: Float64s | None) -> Any:
        unknown = self.unknown
        return build_class_matrix(
            unknown.query[:count], unknown.gallery[:count], amounts, len(unknown.tail.pairs.classes)
        )

    def _build_fractions(self, matrices: list[Any], weights: Float64s) -> PairFractions:
        sizes = self.unknown.tail.pairs.a.sizes.astype(np.float64)
        return PairFractions(matrices, sizes, np.ones(len(sizes)), weights)


@dataclass(frozen=True)
class TailCoordinate:
    """The coordinate in which tails are exponential, of scores ``low + (high - low) * similarity``.

    Scores corrected by densities may lie beyond the score of similarity 1: from ``STRAIGHT`` on the
    coordinate is continued as a straight line, which again errs on the safe side.
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

    def __call__(self, scores: Float64s) -> Float64s:
        """float, the shape of ``scores``, ascending with them."""
        similar = np.maximum((scores - self.low) / (self.high - self.low), 0.0)
        inside = np.minimum(similar, self.straight)
        slope = 2 * self.straight / (1 - self.straight**2)
        return np.asarray(-np.log1p(-(inside**2)) + slope * (similar - inside))


def _extrapolate(fractions: Float64s, beyond: float) -> Float64s:
    rate, excess = fractions
    usable = (rate > 0) & (excess > 0)
    safe_rate, safe_excess = np.where(usable, rate, 1.0), np.where(usable, excess, 1.0)
    values: Float64s = np.where(usable, safe_rate * np.exp(-beyond * safe_rate / safe_excess), 0.0)
    return values


def compute_start_rate(rate: float, n_classes: int) -> float:
    """The match rate at which a tail that is extrapolated to ``rate`` starts, if it is exponential."""
    level = min(2 * MATCHED / (n_classes * (n_classes - 1)), STEEPEST * rate, MOST)
    return min(1.0, max(LEAST * rate, level))


def fit_match_rate_tail(
    unknown: UnknownQueries, rate: float, weights: Float64s, below: float = np.inf
) -> MatchRateTail | None:
    """The tail from the lowest start, at most ``below``, from which an exponential extrapolates to ``rate``.

    None where no start has the support of enough pairs and classes.
    """
    first, second = unknown.tail.codes
    supported = find_support(first, second)
    if supported is None:
        return None
    highest = float(unknown.tail.scores[supported])
    limit = min(below, highest)
    rates = [compute_start_rate(rate, len(unknown.tail.pairs.classes))]
    while rates[-1] > 2 * LEAST * rate:
        rates.append(rates[-1] / 2)
    rates.append(LEAST * rate)
    scores = [unknown.find_score(start_rate) for start_rate in rates]
    starts = [score for score in scores if score <= limit]
    if not starts:
        return None if scores[0] > highest else MatchRateTail(unknown, limit, weights)
    for start in starts:
        tail = MatchRateTail(unknown, start, weights)
        if not any(tail.is_too_light(score) for score in scores):
            break
    return tail
