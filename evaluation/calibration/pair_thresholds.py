"""Thresholds for 1:1: the lowest that meets a FAR, the highest that meets an FRR, EER and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Float64s, Int64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from evaluation.calibration.bootstrap_bounds import class_matrix, class_share, pair_share
from evaluation.calibration.impostor_tail import Tail, collect, exact_scores, sampled_rows
from evaluation.pairs.pairs import Pairs

SUPPORT_PAIRS = 30
SUPPORT_CLASSES = 10
BINS = 1 << 16


@dataclass(frozen=True)
class Genuine:
    """Genuine pairs with the scores decisions are made on: class codes int64 [m], float32 [m]."""

    codes: Int64s
    scores: Float32s
    per_class: Int64s

    def rejected(self, threshold: float) -> Float64s:
        """Float [classes]: genuine pairs below the threshold."""
        below = self.scores < np.float32(threshold)
        return np.bincount(self.codes[below], minlength=len(self.per_class)).astype(np.float64)


def genuine_pairs(pairs: Pairs) -> Genuine:
    """All genuine pairs, scored by the one kernel."""
    found = pairs.genuine()
    a, b = found.a.astype(np.int64), found.b.astype(np.int64)
    return Genuine(found.codes.astype(np.int64), exact_scores(pairs, a, b), pairs.genuine_per_class)


def far_threshold(
    pairs: Pairs, share: float, confidence: float, weights: Float64s, *, seed: int = 0, track: Track = silent
) -> float:
    """The lowest threshold whose FAR is at most ``share``, by its class-resampled upper bound.

    Raises:
        CalibrationRefused: too few accepted impostor pairs or classes would support the bound, or
            ties leave no threshold.
    """
    tail = _collect_share(pairs, share, seed, track)
    sizes = pairs.a.sizes.astype(np.float64)
    threshold = _lowest(tail, share, confidence, sizes, weights)
    for _ in range(3):
        settled = tail.settled(threshold)
        exact = _lowest(settled, share, confidence, sizes, weights)
        if exact == threshold:
            break
        tail, threshold = settled, exact
    return threshold


def _collect_share(pairs: Pairs, share: float, seed: int, track: Track) -> Tail:
    _, scores = sampled_rows(pairs, seed)
    drawn = scores[np.isfinite(scores)]
    drawn = -np.sort(-drawn)
    wanted = 1.2 * share
    while True:
        place = min(int(wanted * len(drawn)) + 10, len(drawn) - 1)
        tail = collect(pairs, float(drawn[place]), track)
        if len(tail) > share * pairs.n_impostor or place == len(drawn) - 1:
            return tail
        wanted *= 1.5


def _lowest(tail: Tail, share: float, confidence: float, sizes: Float64s, weights: Float64s) -> float:
    last = np.flatnonzero(np.diff(tail.scores, append=np.float32(-np.inf)))  # last pair of each tie
    first, second = tail.codes
    n = len(sizes)

    def meets(place: int) -> bool:
        count = int(last[place]) + 1
        if count > share * tail.pairs.n_impostor:
            return False
        matrix = class_matrix(first[:count], second[:count], np.full(count, 2.0), n)
        return pair_share(matrix, sizes, weights, confidence).bound <= share

    supported = supported_at(first, second)
    low = int(np.searchsorted(last, supported)) if supported is not None else len(last)
    if low >= len(last) or not meets(low):
        raise _unsupported(tail, share, low, last)
    return float(tail.scores[last[last_true(meets, low, len(last))]])


def supported_at(first: Int64s, second: Int64s) -> int | None:
    """Position of the first pair that, with those before it, supports a bound; None if none does."""
    if len(first) < SUPPORT_PAIRS:
        return None
    seen = np.unique(np.stack([first, second], axis=1).ravel(), return_index=True)[1] // 2
    if len(seen) < SUPPORT_CLASSES:
        return None
    return max(SUPPORT_PAIRS - 1, int(np.sort(seen)[SUPPORT_CLASSES - 1]))


def _unsupported(tail: Tail, share: float, low: int, last: NDArray[Any]) -> CalibrationRefused:
    allowed = share * tail.pairs.n_impostor
    tied = low < len(last) and int(last[low]) + 1 > allowed
    if tied and (low == 0 or int(last[low - 1]) + 1 <= allowed):
        ties = int(last[low]) - (int(last[low - 1]) if low else -1)
        if ties > SUPPORT_PAIRS:
            return CalibrationRefused(
                f"Ties leave no threshold with FAR <= {share:g}: {ties} impostor pairs share the score "
                f"{tail.scores[last[low]]:.7g}; more precise or more varied embeddings are needed."
            )
    needed = 2 * SUPPORT_PAIRS / share
    return CalibrationRefused(
        f"FAR <= {share:g} cannot be supported by {tail.pairs.n_impostor} impostor pairs of "
        f"{len(tail.pairs.classes)} classes: at least {SUPPORT_PAIRS} accepted impostor pairs from "
        f"{SUPPORT_CLASSES} classes must lie within the bound, which takes about {needed:.0f} impostor "
        "pairs or more; give more classes, or a higher target."
    )


def last_true(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last place in [low, high) where a condition that once fails stays false holds; low does."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def frr_threshold(genuine: Genuine, share: float, confidence: float, weights: Float64s) -> float:
    """The highest threshold whose FRR is at most ``share``, by its class-resampled upper bound."""
    scores = np.unique(genuine.scores)
    totals = genuine.per_class.astype(np.float64)

    def meets(place: int) -> bool:
        rejected = genuine.rejected(float(scores[place]))
        return class_share(rejected, totals, weights, confidence).bound <= share

    order = np.argsort(genuine.scores, kind="stable")
    codes = genuine.codes[order]
    supported = supported_at(codes, codes)
    if supported is not None:
        low = int(np.searchsorted(scores, genuine.scores[order[supported]], side="right"))
        if low < len(scores) and meets(low):
            return float(scores[last_true(meets, low, len(scores))])
    raise CalibrationRefused(
        f"FRR <= {share:g} cannot be supported by {int(totals.sum())} genuine pairs of "
        f"{int(np.count_nonzero(totals))} classes: at least {SUPPORT_PAIRS} rejected genuine pairs from "
        f"{SUPPORT_CLASSES} classes must lie within the bound; give more classes or items, or a "
        "higher target."
    )


def error_curves(
    pairs: Pairs, genuine: Genuine, track: Track = silent
) -> tuple[Float64s, Float64s, Float64s]:
    """Thresholds (float32 values, ascending, [m]) with FAR and FRR at each, on a grid of scores."""
    _, sample = sampled_rows(pairs, 0)
    finite = sample[np.isfinite(sample)]
    low = min(float(finite.min()), float(genuine.scores.min()))
    high = max(float(finite.max()), float(genuine.scores.max()))
    edges = np.linspace(low, high, BINS).astype(np.float32)
    counts = np.zeros(BINS + 1, dtype=np.int64)
    for block in track(pairs.blocks(), "pairs", len(pairs.tiles)):
        scores = block.scores[pairs.impostors(block)]
        counts += np.bincount(np.searchsorted(edges, scores, side="right"), minlength=BINS + 1)
    far = np.cumsum(counts[::-1])[::-1][1:] / pairs.n_impostor
    frr = np.searchsorted(np.sort(genuine.scores), edges, side="left") / len(genuine.scores)
    return edges.astype(np.float64), far, frr


def equal_error_threshold(thresholds: Float64s, far: Float64s, frr: Float64s) -> float:
    """Where FAR and FRR are closest; the lowest such threshold."""
    return float(thresholds[np.argmin(np.abs(far - frr))])


def least_cost_threshold(
    thresholds: Float64s,
    far: Float64s,
    frr: Float64s,
    *,
    false_match: float,
    false_non_match: float,
    prior: float,
) -> tuple[float, float]:
    """The threshold of least expected cost per trial, and that cost."""
    cost = (1 - prior) * false_match * far + prior * false_non_match * frr
    best = int(np.argmin(cost))
    return float(thresholds[best]), float(cost[best])
