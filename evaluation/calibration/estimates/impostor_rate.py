"""The rate of impostors above a threshold, estimated: counted up to a score, and along a tail from there.

The tail is exponential in the coordinate of the scores (``match_rate_tail.py``). A bound starts it as near to
the target as its support allows; a best estimate starts it far below, where about ``PER_QUERY`` classes match
every query: the further start takes a little more bias and far less noise, so that with 20 to 120 classes the
realised rate lies within a factor of two of the estimated one more often (``benchmarks/statistics.py``).
Where rates counted further up exceed the tail by more than chance explains, it starts further up.
"""

from __future__ import annotations

import numpy as np

from common.errors import CalibrationRefused
from evaluation.calibration.match_rate_tail import MatchRateTail
from evaluation.calibration.trials import RankedScores

PER_QUERY = 4.0  # classes that match a query where the tail of 1:N trials starts
MOST = 0.2  # of all trials, whatever the number of classes
LONGEST = 10_000  # impostors above the start; more say nothing new
LEAST = 30  # impostors above the highest start
FURTHEST = 1e5  # ratio of rates that a tail is followed
RESAMPLED = 3  # classes from which on the start can be tested


def compute_widest_rate(n_classes: int) -> float:
    """The fraction of 1:N trials above the lowest start of a tail."""
    return min(MOST, PER_QUERY / max(1, n_classes))


class ImpostorRate:
    """The fraction of impostors that reach a threshold, as a function of the threshold.

    Attributes:
        start: the score from which on the rate follows the tail.
        excess: mean excess over the start, in the coordinate of the scores; 0 where all scores are equal.
        above: impostors that reach the start.
    """

    def __init__(self, ranked: RankedScores, widest: float) -> None:
        self.ranked = ranked
        rate = min(widest, LONGEST / max(1, ranked.trials))
        rates = [rate]
        while rates[-1] / 2 * ranked.trials >= LEAST:
            rates.append(rates[-1] / 2)
        starts = [ranked.find_score(level) for level in rates]
        for start in starts:
            self.start, self.above = start, ranked.count_matched(start)
            self.excess = self._measure_excess()
            if ranked.n_classes < RESAMPLED or self.excess <= 0:
                break
            tail = MatchRateTail(ranked, start, np.ones((1, ranked.n_classes)))
            if not any(tail.is_too_light(level) for level in starts):
                break

    def _measure_excess(self) -> float:
        coordinate = self.ranked.coordinate(self.ranked.scores[: self.above])
        return float(np.mean(coordinate - self.locate(self.start)))

    def check(self, rate: float, wanted: str) -> None:
        """Raise CalibrationRefused where ties leave no tail, or the rate is out of its reach."""
        if self.excess <= 0:
            raise CalibrationRefused(
                f"Ties or duplicates across classes leave no threshold with {wanted}: the highest impostors "
                f"share the score {self.ranked.scores[0]:.7g}; items that are stored under two labels should "
                "be removed, or the target raised."
            )
        if self.above / self.ranked.trials > FURTHEST * rate:
            raise CalibrationRefused(
                f"{wanted} lies too far beyond what {self.ranked.n_classes} classes show to be estimated; "
                "give more classes, a smaller gallery, or a higher target."
            )

    def measure_log_variance(self) -> float:
        """Variance of the logarithm of the mean excess over newly sampled classes."""
        if self.ranked.n_classes < RESAMPLED or self.excess <= 0:
            return 1.0 / max(1, self.above)
        fractions = MatchRateTail(self.ranked, self.start, np.ones((1, self.ranked.n_classes))).fractions
        rate, excess = fractions.values
        return float(sum(fractions.compute_variance(np.array([-1 / rate, 1 / excess]))))

    def locate(self, score: float) -> float:
        """The coordinate of a score."""
        return float(self.ranked.coordinate(np.array([score]))[0])

    def compute(self, threshold: float) -> float:
        """The rate at a threshold."""
        if threshold <= self.start or self.excess <= 0:
            return self.ranked.compute_match_rate(threshold)
        rate = self.above / self.ranked.trials
        return rate * float(np.exp(-(self.locate(threshold) - self.locate(self.start)) / self.excess))

    def compute_ratio(self, low: float, high: float, excess: float | None = None) -> float:
        """The rate at a higher score, as a fraction of that at a lower one.

        ``excess`` stands for the tail's own, where another set of trials has one.
        """
        own = self.excess if excess is None else excess
        foot = min(max(low, self.start), high)
        counted = self.ranked.compute_match_rate(low)
        to_foot = self.ranked.compute_match_rate(foot) / counted if counted and foot > low else 1.0
        if own <= 0:
            return self.ranked.compute_match_rate(high) / counted if counted else 1.0
        return to_foot * float(np.exp(-(self.locate(high) - self.locate(foot)) / own))
