"""Thresholds for 1:1: the lowest that meets a FAR, the highest that meets an FRR, EER and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.operating_point import Target
from common.array_types import Float32s, Float64s, Int64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.scorers import accepts, count_reached, count_rejected
from evaluation.calibration.bootstrap_bounds import (
    Interval,
    build_class_matrix,
    estimate_class_fraction_interval,
    estimate_pair_fraction_interval,
)
from evaluation.calibration.impostor_scores import (
    ImpostorTail,
    collect_tail,
    compute_exact_scores,
    sample_impostor_scores,
)
from evaluation.metrics.class_bootstrap import REPLICATES, draw_classes
from evaluation.pairs.pairs import Pairs

MIN_PAIRS = 30  # accepted or rejected, from so many classes, that a bound is supported by
MIN_CLASSES = 10
SAMPLE_MARGIN = 1.2  # of the rate: a floor taken from a sample may be a little too high
SAMPLE_SPARE = 10  # pairs further down the sample, for small samples
SAMPLE_GROWTH = 1.5  # of the tail where it was too short
RESCORE_ROUNDS = 3  # exact scores move a threshold by a rounding error, rarely a second time
BINS = 1 << 16  # of the error curves


@dataclass(frozen=True)
class GenuineScores:
    """Genuine pairs with the scores decisions are made on: class codes int64 [m], float32 [m]."""

    codes: Int64s
    scores: Float32s
    per_class: Int64s

    def count_rejected(self, threshold: float) -> Float64s:
        """float [classes]: genuine pairs below the threshold."""
        rejected = self.codes[~accepts(self.scores, threshold)]
        return np.bincount(rejected, minlength=len(self.per_class)).astype(np.float64)


def score_genuine_pairs(pairs: Pairs) -> GenuineScores:
    """All genuine pairs, scored by the one kernel."""
    genuine = pairs.collect_genuine()
    scores = compute_exact_scores(pairs, genuine.a.astype(np.int64), genuine.b.astype(np.int64))
    return GenuineScores(genuine.codes.astype(np.int64), scores, pairs.genuine_per_class)


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Pairs of a set with itself that a threshold is chosen or measured on, for a target.

    Bounds draw the classes ``draws`` times; ``seed`` seeds these draws and every other sample.
    """

    pairs: Pairs
    target: Target
    seed: int = 0
    track: Track = silent
    draws: int = REPLICATES

    @cached_property
    def genuine(self) -> GenuineScores:
        """All genuine pairs."""
        return score_genuine_pairs(self.pairs)

    @cached_property
    def weights(self) -> Float64s:
        """float64 [draws, classes]: how often each class is drawn."""
        return draw_classes(len(self.pairs.classes), self.seed, self.draws)

    @property
    def rate(self) -> float:
        """The highest FAR, FPIR or FRR that the target allows."""
        assert self.target.value is not None
        return self.target.value

    def estimate_far_interval(self, accepted: Any) -> Interval:
        """Interval of the FAR, from the accepted pairs between two classes."""
        sizes = self.pairs.a.sizes.astype(np.float64)
        return estimate_pair_fraction_interval(accepted, sizes, self.weights, self.target.confidence)

    def estimate_frr_interval(self, rejected: Float64s) -> Interval:
        """Interval of the FRR, from the rejected genuine pairs of each class."""
        totals = self.genuine.per_class.astype(np.float64)
        return estimate_class_fraction_interval(rejected, totals, self.weights, self.target.confidence)


def find_far_threshold(data: CalibrationSet) -> float:
    """The lowest threshold whose FAR meets the target, by its class-resampled upper bound.

    Raises:
        CalibrationRefused: too few accepted impostor pairs or classes would support the bound, or
            ties leave no threshold.
    """
    tail = _collect_tail(data)
    threshold = _find_lowest(data, tail)
    for _ in range(RESCORE_ROUNDS):
        rescored = tail.rescore_near(threshold)
        exact = _find_lowest(data, rescored)
        if exact == threshold:
            break
        tail, threshold = rescored, exact
    return threshold


def _collect_tail(data: CalibrationSet) -> ImpostorTail:
    """More impostor pairs than the target allows to accept, by their highest scores."""
    drawn = sample_impostor_scores(data.pairs, data.seed)
    wanted = SAMPLE_MARGIN * data.rate
    while True:
        position = min(int(wanted * len(drawn)) + SAMPLE_SPARE, len(drawn) - 1)
        tail = collect_tail(data.pairs, float(drawn[position]), data.track)
        if len(tail) > data.rate * data.pairs.n_impostor or position == len(drawn) - 1:
            return tail
        wanted *= SAMPLE_GROWTH


def _find_lowest(data: CalibrationSet, tail: ImpostorTail) -> float:
    last = np.flatnonzero(np.diff(tail.scores, append=np.float32(-np.inf)))  # last pair of each tie
    (first, second), n = tail.codes, len(data.pairs.classes)

    def meets_target(position: int) -> bool:
        count = int(last[position]) + 1
        if count > data.rate * data.pairs.n_impostor:
            return False
        matrix = build_class_matrix(first[:count], second[:count], np.full(count, 2.0), n)
        return data.estimate_far_interval(matrix).upper_bound <= data.rate

    supported = find_support(first, second)
    low = int(np.searchsorted(last, supported)) if supported is not None else len(last)
    if low >= len(last) or not meets_target(low):
        raise _explain_unsupported_far(tail, data.rate, low, last)
    return float(tail.scores[last[find_last_true(meets_target, low, len(last))]])


def find_support(first: Int64s, second: Int64s) -> int | None:
    """Index of the first pair that, with those before it, supports a bound; None if none does."""
    if len(first) < MIN_PAIRS:
        return None
    first_of_class = np.unique(np.stack([first, second], axis=1).ravel(), return_index=True)[1] // 2
    if len(first_of_class) < MIN_CLASSES:
        return None
    return max(MIN_PAIRS - 1, int(np.sort(first_of_class)[MIN_CLASSES - 1]))


def _explain_unsupported_far(
    tail: ImpostorTail, far: float, low: int, last: NDArray[Any]
) -> CalibrationRefused:
    allowed = far * tail.pairs.n_impostor
    tied = low < len(last) and int(last[low]) + 1 > allowed
    if tied and (low == 0 or int(last[low - 1]) + 1 <= allowed):
        ties = int(last[low]) - (int(last[low - 1]) if low else -1)
        if ties > MIN_PAIRS:
            return CalibrationRefused(
                f"Ties leave no threshold with FAR <= {far:g}: {ties} impostor pairs share the score "
                f"{tail.scores[last[low]]:.7g}; more precise or more varied embeddings are needed."
            )
    needed = 2 * MIN_PAIRS / far
    return CalibrationRefused(
        f"FAR <= {far:g} cannot be supported by {tail.pairs.n_impostor} impostor pairs of "
        f"{len(tail.pairs.classes)} classes: at least {MIN_PAIRS} accepted impostor pairs from "
        f"{MIN_CLASSES} classes must lie within the bound, which takes about {needed:.0f} impostor "
        "pairs or more; give more classes, or a higher target."
    )


def find_last_true(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Binary search: last index in [low, high) where a monotone condition holds; it holds at ``low``."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def find_frr_threshold(data: CalibrationSet) -> float:
    """The highest threshold whose FRR meets the target, by its class-resampled upper bound."""
    genuine = data.genuine
    scores = np.unique(genuine.scores)

    def meets_target(position: int) -> bool:
        rejected = genuine.count_rejected(float(scores[position]))
        return data.estimate_frr_interval(rejected).upper_bound <= data.rate

    order = np.argsort(genuine.scores, kind="stable")
    codes = genuine.codes[order]
    supported = find_support(codes, codes)
    if supported is not None:
        low = int(np.searchsorted(scores, genuine.scores[order[supported]], side="right"))
        if low < len(scores) and meets_target(low):
            return float(scores[find_last_true(meets_target, low, len(scores))])
    raise CalibrationRefused(
        f"FRR <= {data.rate:g} cannot be supported by {int(genuine.per_class.sum())} genuine pairs of "
        f"{int(np.count_nonzero(genuine.per_class))} classes: at least {MIN_PAIRS} rejected "
        f"genuine pairs from {MIN_CLASSES} classes must lie within the bound; give more classes or "
        "items, or a higher target."
    )


def compute_error_curves(data: CalibrationSet) -> tuple[Float64s, Float64s, Float64s]:
    """Thresholds (float32 values, ascending, [m]) with FAR and FRR at each, on a grid of scores."""
    pairs, genuine = data.pairs, data.genuine
    sample = sample_impostor_scores(pairs, 0)
    low = min(float(sample[-1]), float(genuine.scores.min()))
    high = max(float(sample[0]), float(genuine.scores.max()))
    edges = np.linspace(low, high, BINS).astype(np.float32)
    counts = np.zeros(BINS + 1, dtype=np.int64)
    for block in data.track(pairs.iterate_blocks(), "pairs", len(pairs.tiles)):
        scores = block.scores[pairs.mask_impostors(block)]
        counts += np.bincount(count_reached(scores, edges), minlength=BINS + 1)
    far = np.cumsum(counts[::-1])[::-1][1:] / pairs.n_impostor
    frr = count_rejected(np.sort(genuine.scores), edges) / len(genuine.scores)
    return edges.astype(np.float64), far, frr
