"""Thresholds for 1:1: the lowest that meets a FAR, the highest that meets an FRR, EER and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.operating_point import Target
from common.array_types import Bools, Float32s, Float64s, Int64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.scorers import accepts, count_reached, count_rejected
from evaluation.calibration.bootstrap_bounds import (
    Interval,
    PairFractions,
    build_class_matrix,
    estimate_class_fraction_interval,
)
from evaluation.calibration.impostor_scores import (
    ImpostorTail,
    collect_tail,
    compute_window,
    count_accepted_pairs,
    count_pairs_of_tail,
    sample_impostor_scores,
)
from evaluation.calibration.trials import SearchRule, Trials
from evaluation.metrics.class_bootstrap import REPLICATES, draw_classes
from evaluation.pairs.pairs import Pairs

MIN_PAIRS = 30  # accepted or rejected, from so many classes, that a bound is supported by
MIN_CLASSES = 10
LOOK = 4096  # pairs among which the first classes are looked for
SAMPLE_MARGIN = 1.2  # of the rate: a floor taken from a sample may be a little too high
SAMPLE_SPARE = 10  # pairs further down the sample, for small samples
SAMPLE_GROWTH = 1.5  # of the tail where it was too short
RESCORE_ROUNDS = 3  # exact scores move a threshold by a rounding error, rarely a second time
BINS = 1 << 16  # of the error curves
FOLD_DRAWS = 300  # of classes, for thresholds of a part that are a report alone
LONGEST_TAIL = 5_000_000  # pairs that are kept; 20 bytes each
ROUGHLY = 1e-2  # of the search by the variance
PRECISION = 1e-3  # of the pairs that a threshold for a FAR accepts; never more than the bound allows


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
    """All genuine pairs, scored as decisions are."""
    genuine = pairs.collect_genuine()
    return GenuineScores(genuine.codes.astype(np.int64), genuine.scores, pairs.genuine_per_class)


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """A set with itself, and what thresholds for any target are chosen by: each computed once.

    For a part of a set (``is_part``), whose thresholds are a report alone, bounds of a FAR go by variance.
    ``queries``, bool [items] in the order of the set that was arranged: those that search, against the
    others; all against all where it is None.
    """

    pairs: Pairs
    seed: int
    track: Track
    draws: int
    is_part: bool = False
    queries: Bools | None = None

    @cached_property
    def genuine(self) -> GenuineScores:
        """All genuine pairs."""
        return score_genuine_pairs(self.pairs)

    @cached_property
    def weights(self) -> Float64s:
        """float64 [draws, classes]: how often each class is drawn."""
        return draw_classes(len(self.pairs.classes), self.seed, self.draws)

    @cached_property
    def sample(self) -> Float32s:
        """float32, descending: the scores of the impostor pairs of random queries."""
        return sample_impostor_scores(self.pairs, self.seed)

    def score_trials(self, rule: SearchRule) -> Trials:
        """The trials of a 1:N rule."""
        return self.share_trials(rule, lambda: self._score_trials(rule))

    def _score_trials(self, rule: SearchRule) -> Trials:
        if self.queries is None:
            return rule.score_trials(self.pairs, self.track)
        rows = np.flatnonzero(self.queries[self.pairs.a.rows])
        pairs = replace(self.pairs, a=self.pairs.a.select(rows), symmetric=False)
        return replace(rule.score_trials(pairs, self.track), gallery_items=int((~self.queries).sum()))

    def share_trials(self, rule: SearchRule, score: Callable[[], Trials]) -> Trials:
        """The trials of a rule that were scored before, or now and for later."""
        if rule.description not in self._trials:
            self._trials[rule.description] = score()
        return self._trials[rule.description]

    def collect_tail(self, far: float) -> ImpostorTail:
        """More impostor pairs than a FAR allows to accept, by their highest scores; the longest is kept."""
        wanted = SAMPLE_MARGIN * far
        while True:
            position = min(int(wanted * len(self.sample)) + SAMPLE_SPARE, len(self.sample) - 1)
            tail = self.collect_tail_above(float(self.sample[position]))
            if len(tail) > far * self.pairs.n_impostor or position == len(self.sample) - 1:
                return tail
            wanted *= SAMPLE_GROWTH

    def collect_tail_above(self, floor: float) -> ImpostorTail:
        """Every impostor pair with a score of at least ``floor``, and maybe more."""
        if not self._tails or self._tails[-1].floor > floor:
            self._tails[:] = [collect_tail(self.pairs, floor, self.track)]
        return self._tails[-1]

    def count_accepted(self, threshold: float) -> Any:
        """Accepted impostor pairs between two classes at a threshold, each decided by its exact score."""
        floor = threshold - compute_window(self.pairs)
        if not self._tails or self._tails[-1].floor > floor:
            fraction = float(np.mean(accepts(self.sample, floor))) if len(self.sample) else 1.0
            if fraction * self.pairs.n_impostor > LONGEST_TAIL:
                return count_accepted_pairs(self.pairs, threshold, self.track)
        return count_pairs_of_tail(self.collect_tail_above(floor), threshold)

    def restrict(self, kept: Bools) -> ScoredPairs:
        """The same among some classes, bool [classes]; what was scored is not scored again."""
        items = self.pairs.a
        numbers = np.cumsum(kept) - 1
        rows = np.flatnonzero(kept[items.codes])
        positions = np.full(len(items), -1, dtype=np.int64)
        positions[rows] = np.arange(len(rows))
        selected = items.select(rows)
        codes = numbers[selected.codes]
        starts = np.searchsorted(codes, np.arange(int(kept.sum()) + 1)).astype(np.int64)
        side = replace(selected, codes=codes, starts=starts)
        pairs = replace(self.pairs, classes=self.pairs.classes[kept], a=side, b=side)
        part = ScoredPairs(pairs, self.seed, silent, FOLD_DRAWS, True)
        part.__dict__["sample"] = self.sample
        genuine = kept[self.genuine.codes]
        part.__dict__["genuine"] = GenuineScores(
            numbers[self.genuine.codes[genuine]], self.genuine.scores[genuine], self.genuine.per_class[kept]
        )
        for tail in self._tails:
            inside = (positions[tail.a] >= 0) & (positions[tail.b] >= 0)
            a, b = positions[tail.a[inside]], positions[tail.b[inside]]
            part._tails.append(ImpostorTail(pairs, tail.floor, a, b, tail.scores[inside]))
        return part

    @cached_property
    def _trials(self) -> dict[str, Trials]:
        return {}

    @cached_property
    def _tails(self) -> list[ImpostorTail]:
        return []


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Pairs of a set with itself that a threshold is chosen or measured on, for a target.

    Bounds draw the classes ``draws`` times; ``seed`` seeds these draws and every other sample. ``shared`` is
    that of another target on the same pairs (``with_target``). ``queries``: see ``ScoredPairs``.
    """

    pairs: Pairs
    target: Target
    seed: int = 0
    track: Track = silent
    draws: int = REPLICATES
    shared: ScoredPairs | None = None
    queries: Bools | None = None

    @cached_property
    def scored(self) -> ScoredPairs:
        """What all targets share."""
        return self.shared or ScoredPairs(self.pairs, self.seed, self.track, self.draws, queries=self.queries)

    def with_target(self, target: Target) -> CalibrationSet:
        """The same pairs for another target; nothing is scored twice."""
        return replace(self, target=target, shared=self.scored)

    @property
    def genuine(self) -> GenuineScores:
        """All genuine pairs."""
        return self.scored.genuine

    @property
    def weights(self) -> Float64s:
        """float64 [draws, classes]: how often each class is drawn."""
        return self.scored.weights

    @property
    def rate(self) -> float:
        """The highest FAR, FPIR or FRR that the target allows."""
        assert self.target.value is not None
        return self.target.value

    def estimate_far_interval(self, accepted: Any) -> Interval:
        """Interval of the FAR, from the accepted pairs between two classes."""
        return self.split_far(accepted).compute_interval(lambda f: f[0], np.ones(1), self.target.confidence)

    def split_far(self, accepted: Any) -> PairFractions:
        """The FAR as a fraction of pairs of classes, from the accepted pairs between two classes."""
        sizes = self.pairs.a.sizes.astype(np.float64)
        return PairFractions([accepted], sizes, sizes, self.weights)

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
    tail = data.scored.collect_tail(data.rate)
    threshold = _find_lowest(data, tail)
    for _ in range(RESCORE_ROUNDS):
        rescored = tail.rescore_near(threshold)
        exact = _find_lowest(data, rescored)
        if exact == threshold:
            break
        tail, threshold = rescored, exact
    return threshold


def _find_lowest(data: CalibrationSet, tail: ImpostorTail) -> float:
    """The lowest score of the tail, within PRECISION of the pairs accepted, whose bound meets the target.

    A search by the variance alone, which is quick, comes close; the bound is resampled around that.
    """
    last = np.flatnonzero(np.diff(tail.scores, append=np.float32(-np.inf)))  # last pair of each tie
    (first, second), n = tail.codes, len(data.pairs.classes)
    allowed = data.rate * data.pairs.n_impostor

    def split(position: int) -> PairFractions:
        count = int(last[position]) + 1
        return data.split_far(build_class_matrix(first[:count], second[:count], np.full(count, 2.0), n))

    def is_about_right(position: int) -> bool:
        return (
            int(last[position]) < allowed
            and split(position).approximate_bound(data.target.confidence) <= data.rate
        )

    def meets_target(position: int) -> bool:
        if int(last[position]) + 1 > allowed:
            return False
        interval = split(position).compute_interval(lambda f: f[0], np.ones(1), data.target.confidence)
        return interval.upper_bound <= data.rate

    supported = find_support(first, second)
    low = int(np.searchsorted(last, supported)) if supported is not None else len(last)
    if low >= len(last) or not meets_target(low):
        raise _explain_unsupported_far(tail, data.rate, low, last)
    near = find_last_true(is_about_right, low, len(last), ROUGHLY) if is_about_right(low) else low
    if data.scored.is_part:
        return float(tail.scores[last[near]])
    return float(tail.scores[last[find_last_true_near(meets_target, near, low, len(last))]])


def find_support(first: Int64s, second: Int64s, least: int = MIN_PAIRS) -> int | None:
    """Index of the first pair that, with those before it, supports a bound; None if none does."""
    if len(first) < least:
        return None
    looked = LOOK
    while True:
        both = np.stack([first[:looked], second[:looked]], axis=1).ravel()
        first_of_class = np.unique(both, return_index=True)[1] // 2
        if len(first_of_class) >= MIN_CLASSES:
            return max(least - 1, int(np.sort(first_of_class)[MIN_CLASSES - 1]))
        if looked >= len(first):
            return None
        looked *= 16


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
    within = min(int(allowed), len(tail))
    first, second = tail.codes
    distinct = len(np.unique([first[:within], second[:within]]))
    n_classes, n_pairs = len(tail.pairs.classes), tail.pairs.n_impostor
    if within < 2 * MIN_PAIRS:
        missing = (
            f"a bound takes about {2 * MIN_PAIRS / far:.0f} pairs, {MIN_PAIRS} of them accepted, and there "
            f"are {n_pairs}"
        )
    elif distinct < 2 * MIN_CLASSES:
        missing = (
            f"the {within} pairs that it allows to accept are of {distinct} distinct classes, where a bound "
            f"takes at least {MIN_CLASSES} and leaves room for their chance: a few classes that are alike "
            "decide alone"
        )
    else:
        missing = (
            f"the bound over {n_classes} distinct classes lies above it at every threshold with at least "
            f"{MIN_PAIRS} accepted pairs of {MIN_CLASSES} classes: classes are what is short, not pairs"
        )
    return CalibrationRefused(
        f"FAR <= {far:g} cannot be supported by {n_pairs} impostor pairs of {n_classes} classes: {missing}; "
        "give more classes, or a higher target."
    )


def find_last_true(holds: Callable[[int], bool], low: int, high: int, precision: float = 0.0) -> int:
    """Binary search: last index in [low, high) where a monotone condition holds; it holds at ``low``.

    With a precision, an index where it holds, at most that fraction of itself below the last.
    """
    while high - low > max(1.0, precision * low):
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def find_last_true_near(holds: Callable[[int], bool], near: int, low: int, high: int) -> int:
    """The same, within PRECISION, by ever longer steps away from an index that is close to it."""
    step = max(1, near // 200)
    if holds(near):
        low = near
        while near + step < high:
            if not holds(near + step):
                high = near + step
                break
            low, near, step = near + step, near + step, 4 * step
    else:
        high = near
        while near - step > low:
            if holds(near - step):
                low = near - step
                break
            high, near, step = near - step, near - step, 4 * step
    return find_last_true(holds, low, high, PRECISION)


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
    sample = data.scored.sample
    low = min(float(sample[-1]), float(genuine.scores.min()))
    high = max(float(sample[0]), float(genuine.scores.max()))
    edges = np.linspace(low, high, BINS).astype(np.float32)
    counts = np.zeros(BINS + 1, dtype=np.int64)
    for block in data.track(pairs.iterate_blocks(), "error curves", len(pairs.tiles)):
        scores = block.scores[pairs.mask_impostors(block)]
        counts += np.bincount(count_reached(scores, edges), minlength=BINS + 1)
    far = np.cumsum(counts[::-1])[::-1][1:] / pairs.n_impostor
    frr = count_rejected(np.sort(genuine.scores), edges) / len(genuine.scores)
    return edges.astype(np.float64), far, frr
