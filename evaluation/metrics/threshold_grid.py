"""The thresholds of OPIS: a range of the pooled FAR, evenly divided (docs/specification.md, OPIS)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Float64s, Int64s
from decision.scorers import accepts
from evaluation.pairs.sweep import Sweep


@dataclass(frozen=True)
class ThresholdGrid:
    """Thresholds, descending: a pair is accepted iff its score reaches the threshold.

    Attributes:
        far: pooled FAR at the two ends of the calibration range.
        distance: the ends as L2 distances, for the similarity as score; else None.
        uniform: float32 [grid], uniform in distance (cosine) or in score.
        log_far: float32 [grid], at which the pooled FAR is evenly spaced in its logarithm.
    """

    far: tuple[float, float]
    distance: tuple[float, float] | None
    uniform: Float32s
    log_far: Float32s


def build_threshold_grid(
    sweep: Sweep,
    far: tuple[float, float] = (0.01, 0.1),
    size: int = 101,
    thresholds: Sequence[float] | None = None,
) -> ThresholdGrid:
    """The grids of a calibration range, from the quantiles of all impostor pairs.

    ``thresholds``, descending, take the place of the uniform grid; the sweep holds all pairs that reach them.
    """
    by_distance = sweep.pairs.scorer.is_similarity
    placed = place_thresholds(sweep.find_impostor_scores, sweep.pairs.n_impostor, by_distance, far, size)
    if thresholds is None:
        return placed
    uniform = np.array(thresholds, dtype=np.float32)
    n = sweep.pairs.n_impostor
    tight, loose = (
        sum(int(accepts(scores, end).sum()) for _, _, scores in sweep.top.chunks) / n
        for end in uniform[[0, -1]].tolist()
    )
    of_ends = convert_to_distance(uniform[[0, -1]]).tolist()
    distance = (of_ends[0], of_ends[1]) if by_distance else None
    return ThresholdGrid((tight, loose), distance, uniform, placed.log_far)


def place_thresholds(
    find_scores: Callable[[Int64s], Float32s],
    n: int,
    by_distance: bool,
    far: tuple[float, float] = (0.01, 0.1),
    size: int = 101,
) -> ThresholdGrid:
    """The grids of a calibration range.

    Args:
        find_scores: the impostor scores, float32, of ranks int64; rank 1 is the highest.
        n: impostor pairs.
        by_distance: whether the score is the similarity, so that the grid is uniform in distance.
    """
    positions = np.array([end * (n - 1) for end in far])
    lower = np.floor(positions).astype(np.int64)
    ranks = np.stack([lower, np.minimum(lower + 1, n - 1)]) + 1
    levels = np.geomspace(far[0], far[1], size)
    # the highest observed score that accepts at least that fraction: no interpolation, so that the grid
    # does not change under a monotone transform of the score; 1e-9 forgives the rounding of a fraction
    log_ranks = np.clip(np.ceil(levels * n - 1e-9), 1, n).astype(np.int64)
    scores = find_scores(np.concatenate([ranks.ravel(), log_ranks]))
    ends, log_far = scores[: ranks.size].reshape(ranks.shape).astype(np.float64), scores[ranks.size :]
    values = convert_to_distance(ends) if by_distance else ends
    low, high = (float(v) for v in values[0] + (values[1] - values[0]) * (positions - lower))
    points = np.linspace(low, high, size)
    if by_distance:
        return ThresholdGrid(far, (low, high), find_similarity_within(points), log_far)
    return ThresholdGrid(far, None, _round_up_to_float32(points), log_far)


def convert_to_distance(similarities: NDArray[np.floating]) -> Float64s:
    """float64: L2 distance of unit vectors, sqrt(2 - 2 similarity)."""
    return np.sqrt(np.maximum(0.0, 2 - 2 * np.asarray(similarities, dtype=np.float64)))


def find_similarity_within(distances: Float64s) -> Float32s:
    """float32: the least similarity whose distance is at most the given one."""
    guess = (1 - np.square(distances) / 2).astype(np.float32)
    for _ in range(4):
        too_far = convert_to_distance(guess) > distances
        guess = np.where(too_far, np.nextafter(guess, np.float32(2)), guess)
    for _ in range(8):
        below = np.nextafter(guess, np.float32(-2))
        guess = np.where(convert_to_distance(below) <= distances, below, guess)
    return guess.astype(np.float32)


def _round_up_to_float32(points: Float64s) -> Float32s:
    """The least float32 at or above each point."""
    rounded = points.astype(np.float32)
    return np.where(
        rounded.astype(np.float64) < points, np.nextafter(rounded, np.float32(np.inf)), rounded
    ).astype(np.float32)
