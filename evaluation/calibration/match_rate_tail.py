"""The match rate of one class and an unknown query, counted and carried along its tail.

At the levels that matter only a few pairs of classes match, so the rate is not counted at the
threshold but carried there from a lower score u: ``p(t) = p(u) exp(-(y(t)-y(u))/m)``, m the mean excess
over y(u), the exponential tail of peaks over a threshold (Pickands 1975; Davison & Smith 1990). For
similarities ``y(s) = -log(1 - s^2)``, in which the caps of a sphere have an exponential tail in any
dimension; other scores are first brought to the scale of similarities. Lighter tails err on the safe
side. Heavier ones, as lookalike classes make them, do not: the start u is moved up, each time to half
the rate, until no rate counted above it exceeds the one carried there by more than chance explains
(a one-sided test with the class-resampled variance; choosing the start by a sequence of tests: Bader,
Yan & Zhang 2018). At a threshold where more is counted than that, what is counted is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from common.array_types import Float64s, Int64s
from common.progress import Track, silent
from decision.scorers import CosineScorer
from evaluation.calibration.bootstrap_bounds import Interval, PairShares, class_matrix
from evaluation.calibration.impostor_tail import Tail, collect, sampled_rows
from evaluation.calibration.pair_thresholds import supported_at
from evaluation.pairs.pairs import Pairs

MATCHED = 250  # pairs of classes, matched by every query, that a tail is carried from
STEEPEST = 350.0  # the furthest it is carried, as a ratio of match rates
LEAST = 1.5  # it starts at least this much above the target
MOST = 0.05  # and at no higher rate, above which there is no tail
DOUBT = 0.01  # chance to take an exponential tail for a heavier one, per rate looked at
STRAIGHT = 0.95


@dataclass(frozen=True, eq=False)
class UnknownQueries:
    """Best scores of unknown queries within each other class, above a floor, highest first.

    Attributes:
        tail: the pairs they were taken from.
        query, gallery: int64 [m], classes of the query and of the gallery's item.
        scores: float64 [m].
    """

    tail: Tail
    query: Int64s
    gallery: Int64s
    scores: Float64s

    @property
    def trials(self) -> int:
        """Every item is an unknown query to every other class once."""
        return len(self.tail.pairs.a) * (len(self.tail.pairs.classes) - 1)

    def match_rate(self, threshold: float) -> float:
        """Share of trials matched, counted."""
        matched = np.searchsorted(-self.scores, -float(np.float32(threshold)), side="right")
        return float(matched / self.trials)

    def at(self, rate: float) -> float:
        """The score that about this share of trials reaches."""
        return float(self.scores[min(int(rate * self.trials), len(self.scores) - 1)])


def unknown_queries(tail: Tail) -> UnknownQueries:
    """Reduce pairs of items to each query's best score within each class."""
    codes_a, codes_b = tail.codes
    query = np.concatenate([tail.a, tail.b])
    gallery = np.concatenate([codes_b, codes_a])
    scores = np.concatenate([tail.scores, tail.scores])
    order = np.argsort(-scores, kind="stable")
    trial = query[order] * len(tail.pairs.classes) + gallery[order]
    best = order[np.sort(np.unique(trial, return_index=True)[1])]
    return UnknownQueries(
        tail, tail.pairs.a.codes[query[best]], gallery[best], scores[best].astype(np.float64)
    )


def collect_unknown(pairs: Pairs, rate: float, *, seed: int = 0, track: Track = silent) -> UnknownQueries:
    """The tail down to a score where at least ``rate`` of all trials are matched."""
    rows, scores = sampled_rows(pairs, seed)
    present = np.flatnonzero(pairs.a.sizes)
    best = np.maximum.reduceat(scores, pairs.a.starts[present], axis=1).ravel()
    best = -np.sort(-best)
    wanted, trials = 1.5 * rate, len(rows) * (len(present) - 1)
    while True:
        place = min(int(wanted * trials), trials - 1)
        found = unknown_queries(collect(pairs, float(best[place]), track))
        if len(found.scores) >= rate * found.trials or place == trials - 1:
            return found
        wanted *= 2


class MatchTail:
    """The match rate as a function of the threshold, from score ``start`` on, with its interval."""

    def __init__(self, unknown: UnknownQueries, start: float, weights: Float64s) -> None:
        self.stretch = Stretch.of(unknown.tail.pairs)
        self.start = start
        self.unknown = unknown
        self.weights = weights
        count = self._matched(start)
        excess = self.stretch(unknown.scores[:count]) - self.stretch(np.array([start]))
        self.matrices = [self._matrix(count, None), self._matrix(count, excess)]
        self.shares = self._shares(self.matrices, weights)
        self.has_tail = bool(self.shares.values[1] > 0)

    def interval(self, threshold: float, confidence: float) -> Interval:
        """Match rate at a threshold at or above ``start``: carried there, or counted where more is matched
        than the tail can explain."""
        beyond = self._beyond(threshold)
        share, excess = self.shares.values
        if beyond <= 0 or not self.has_tail:
            return self.shares.interval(lambda f: f[0], np.array([1.0, 0.0]), confidence)
        if self.too_light(threshold):
            counted = self._shares([self._matrix(self._matched(threshold), None)], self.weights)
            return counted.interval(lambda f: f[0], np.ones(1), confidence)
        carried = float(share * np.exp(-beyond * share / excess))
        gradient = carried * np.array([1 / share - beyond / excess, beyond * share / excess**2])
        return self.shares.interval(lambda f: _carried(f, beyond), gradient, confidence)

    def too_light(self, score: float) -> bool:
        """Whether the rate counted at a higher score exceeds the carried one by more than chance."""
        beyond = self._beyond(score)
        share, excess = self.shares.values
        matched = self._matched(score)
        if beyond <= 0 or not self.has_tail or not matched:
            return False
        counted = matched / self.unknown.trials
        # the logarithm of counted over carried, and its derivative, as one matrix over pairs of classes
        difference = np.log(counted / share) + beyond * share / excess
        change = (
            self._matrix(matched, None) / counted
            - self.matrices[0] * (1 / share - beyond / excess)
            - self.matrices[1] * (beyond * share / excess**2)
        )
        error = np.sqrt(sum(self._shares([change], np.ones((1, self.shares.n))).variance(np.ones(1))))
        return bool(difference > stats.norm.ppf(1 - DOUBT) * error)

    def _beyond(self, score: float) -> float:
        return float(np.diff(self.stretch(np.array([self.start, score])))[0])

    def _matched(self, score: float) -> int:
        return int(np.searchsorted(-self.unknown.scores, -score, side="right"))

    def _matrix(self, count: int, amounts: Float64s | None) -> Any:
        unknown = self.unknown
        return class_matrix(
            unknown.query[:count], unknown.gallery[:count], amounts, len(unknown.tail.pairs.classes)
        )

    def _shares(self, matrices: list[Any], weights: Float64s) -> PairShares:
        sizes = self.unknown.tail.pairs.a.sizes.astype(np.float64)
        return PairShares(matrices, sizes, np.ones(len(sizes)), weights)


@dataclass(frozen=True)
class Stretch:
    """The coordinate in which tails are exponential, of scores ``low + (high - low) * similarity``.

    Scores corrected by densities may lie beyond the score of similarity 1: from ``STRAIGHT`` on the
    coordinate is continued as a straight line, which again errs on the safe side.
    """

    low: float
    high: float
    straight: float

    @classmethod
    def of(cls, pairs: Pairs) -> Stretch:
        """The scale of a scorer at the mean density of the items."""
        if isinstance(pairs.scorer, CosineScorer) or pairs.a.densities is None:
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


def _carried(shares: Float64s, beyond: float) -> Float64s:
    share, excess = shares
    usable = (share > 0) & (excess > 0)
    safe_share, safe_excess = np.where(usable, share, 1.0), np.where(usable, excess, 1.0)
    values: Float64s = np.where(usable, safe_share * np.exp(-beyond * safe_share / safe_excess), 0.0)
    return values


def tail_rate(rate: float, n_classes: int) -> float:
    """The match rate at which a tail that is to be carried to ``rate`` starts, if it is exponential."""
    level = min(2 * MATCHED / (n_classes * (n_classes - 1)), STEEPEST * rate, MOST)
    return min(1.0, max(LEAST * rate, level))


def match_tail(
    unknown: UnknownQueries, rate: float, weights: Float64s, below: float = np.inf
) -> MatchTail | None:
    """The tail from the lowest start that an exponential can be carried from to ``rate``.

    Args:
        below: starts lie no higher than this score.

    Returns:
        None where no start has the support of enough pairs and classes.
    """
    first, second = unknown.tail.codes
    supported = supported_at(first, second)
    if supported is None:
        return None
    limit = min(below, float(unknown.tail.scores[supported]))
    rates = [tail_rate(rate, len(unknown.tail.pairs.classes))]
    while rates[-1] > 2 * LEAST * rate:
        rates.append(rates[-1] / 2)
    rates.append(LEAST * rate)
    scores = [unknown.at(each) for each in rates]
    starts = [score for score in scores if score <= limit]
    if not starts:
        return (
            None if scores[0] > float(unknown.tail.scores[supported]) else MatchTail(unknown, limit, weights)
        )
    for start in starts:
        tail = MatchTail(unknown, start, weights)
        if not any(tail.too_light(score) for score in scores):
            break
    return tail
