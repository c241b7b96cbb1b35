"""Thresholds over pairs, estimated rather than bounded: FAR along the tail of impostor pairs, FRR counted."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincinv

from common.errors import CalibrationRefused
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.estimates.impostor_rate import RESAMPLED, ImpostorRate, compute_widest_rate
from evaluation.calibration.fpir_thresholds import build_candidates
from evaluation.calibration.impostor_scores import rank_pairs
from evaluation.calibration.match_rate_tail import MatchRateTail
from evaluation.calibration.pair_thresholds import CalibrationSet, find_last_true
from evaluation.calibration.trials import TailCoordinate

COUNTED = 100  # accepted pairs of a FAR that is counted
PER_TRIAL = 0.25  # of the rate where a tail of trials starts: a trial is the best of several pairs
SPARE = 1.2
DOUBT = 0.02  # chance that what is counted is taken for more than the tail


class FarEstimate:
    """FAR at any threshold: counted where COUNTED pairs are accepted, along the tail from there."""

    def __init__(self, data: CalibrationSet) -> None:
        self.data = data
        widest = PER_TRIAL * compute_widest_rate(len(data.pairs.classes))
        tail = data.scored.collect_tail(SPARE * widest)
        ranked = rank_pairs(tail, TailCoordinate.fit(data.pairs))
        self.rate = ImpostorRate(ranked, widest)
        self.level = float(ranked.scores[min(COUNTED, len(ranked.scores)) - 1])

    def compute(self, threshold: float) -> float:
        """The FAR at a threshold."""
        ranked = self.rate.ranked
        if threshold <= self.level:
            return ranked.compute_match_rate(threshold)
        along_tail = ranked.compute_match_rate(self.level) * self.rate.compute_ratio(self.level, threshold)
        accepted = ranked.count_matched(threshold)
        classes = len(np.unique(ranked.query[:accepted]))
        if not classes:
            return along_tail
        at_least = accepted / ranked.trials * float(gammaincinv(classes, DOUBT) / classes)
        return max(along_tail, at_least)

    def compute_interval(self, threshold: float) -> Interval:
        """The FAR with its interval over newly sampled classes."""
        estimate = self.compute(threshold)
        if self.rate.ranked.n_classes < RESAMPLED or not estimate:
            return Interval(estimate, 0.0, 1.0, 1.0)
        tail = MatchRateTail(self.rate.ranked, min(self.rate.start, threshold), self.data.weights)
        part = tail.compute_interval(threshold, self.data.target.confidence)
        factor = estimate / max(part.estimate, 1e-300)
        return Interval.around(
            estimate, *(factor * end for end in (part.lower, part.upper, part.upper_bound))
        )


def estimate_far_threshold(data: CalibrationSet) -> tuple[float, Interval]:
    """The lowest threshold with an estimated FAR of at most the target, and that FAR.

    Raises:
        CalibrationRefused: ties or copies leave none.
    """
    estimate = FarEstimate(data)
    estimate.rate.check(data.rate, f"FAR {data.rate:g}")
    candidates = build_candidates(estimate.rate.ranked.scores, estimate.rate.ranked.coordinate)
    if estimate.compute(float(candidates[-1])) > data.rate:
        raise CalibrationRefused(
            f"Ties leave no threshold with FAR {data.rate:g}: impostor pairs share the score "
            f"{estimate.rate.ranked.scores[0]:.7g}; more precise or more varied embeddings are needed."
        )
    if estimate.compute(float(candidates[0])) <= data.rate:
        position = 0
    else:
        position = 1 + find_last_true(
            lambda k: estimate.compute(float(candidates[k])) > data.rate, 0, len(candidates)
        )
    threshold = float(candidates[position])
    return threshold, estimate.compute_interval(threshold)


def estimate_frr_threshold(data: CalibrationSet) -> tuple[float, Interval]:
    """The threshold that rejects the wanted fraction of genuine pairs, and the FRR there."""
    scores = np.sort(data.genuine.scores)
    threshold = float(scores[min(int(data.rate * len(scores)), len(scores) - 1)])
    rejected = data.genuine.count_rejected(threshold)
    return threshold, data.estimate_frr_interval(rejected)
