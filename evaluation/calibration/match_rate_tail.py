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

from typing import Any

import numpy as np
from scipy.special import ndtri

from common.array_types import Float64s
from evaluation.calibration.bootstrap_bounds import Interval, PairFractions, build_class_matrix
from evaluation.calibration.pair_thresholds import MIN_PAIRS, find_support
from evaluation.calibration.trials import RankedScores

MATCHED = 250  # pairs of classes, matched by every query, that a tail is extrapolated from
STEEPEST = 350.0  # the furthest it is extrapolated, as a ratio of match rates
LEAST = 1.5  # it starts at least this much above the target
MOST = 0.05  # and at no higher rate, above which there is no tail
MIN_TRIALS = 2 * MIN_PAIRS  # a pair of items makes up to two trials
DOUBT = 0.01  # chance to take an exponential tail for a heavier one, per rate tested


class MatchRateTail:
    """The match rate as a function of the threshold, from score ``start`` on, with its interval."""

    def __init__(self, unknown: RankedScores, start: float, weights: Float64s) -> None:
        self.coordinate = unknown.coordinate
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
        return bool(difference > ndtri(1 - DOUBT) * error)

    def _measure_beyond(self, score: float) -> float:
        return float(np.diff(self.coordinate(np.array([self.start, score])))[0])

    def _build_matrix(self, count: int, amounts: Float64s | None) -> Any:
        unknown = self.unknown
        weights = np.full(count, unknown.weight) if amounts is None else unknown.weight * amounts
        return build_class_matrix(unknown.query[:count], unknown.gallery[:count], weights, unknown.n_classes)

    def _build_fractions(self, matrices: list[Any], weights: Float64s) -> PairFractions:
        return PairFractions(matrices, self.unknown.queries, self.unknown.items, weights)


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
    unknown: RankedScores, rate: float, weights: Float64s, below: float = np.inf
) -> MatchRateTail | None:
    """The tail from the lowest start, at most ``below``, from which an exponential extrapolates to ``rate``.

    None where no start has the support of enough pairs and classes.
    """
    supported = find_support(unknown.query, unknown.gallery, MIN_TRIALS)
    if supported is None:
        return None
    highest = float(unknown.scores[supported])
    limit = min(below, highest)
    rates = [compute_start_rate(rate, unknown.n_classes)]
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
