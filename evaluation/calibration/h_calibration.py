"""h-calibration: a monotone map whose mean over every window of scores is the fraction of matches there."""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import Probability
from common.array_types import Bools, Float64s, Int64s

CELLS = 1000  # of equal weight, into which the sorted scores are put
WINDOW = 41  # cells: 4 %, as the authors' 201 of 5,000
KNOTS = 100
CLUSTERS = 15
ROUNDS, RATE = 400, 0.02
REFRESH = 50  # rounds between two clusterings


def fit_h_calibration(
    scores: Float64s, genuine: Bools, weights: Float64s, start: tuple[float, float], prior: float
) -> Probability:
    """Piecewise-linear log-odds for which ``mean over clusters of mean over windows |mean(p - y)|`` is least.

    Huang et al., h-Calibration, TPAMI 2025. Clusters are 15, of the probabilities by k-means, so that the
    many pairs that certainly do not match do not count alone. Adam on the steps between knots, which are kept
    positive by their logarithms; from a straight line.

    Args:
        scores, genuine, weights: float64 [m], bool [m], float64 [m] with the sum 1.
        start: slope and intercept of the log-odds to begin with.

    Reference implementation: pairs of a minibatch one by one and windows over them; here cells of equal
    weight, on which it costs milliseconds. Its tolerance of 1e-20 is none here.
    """
    centres, matches, mass = fill_cells(scores, genuine, weights)
    knots = np.unique(np.quantile(centres, np.linspace(0, 1, KNOTS)))
    if len(knots) < 2:
        knots = np.array([knots[0], knots[0] + 1e-6])
    place = np.clip(np.searchsorted(knots, centres, side="right") - 1, 0, len(knots) - 2)
    along = (centres - knots[place]) / (knots[place + 1] - knots[place])
    slope = max(start[0], 1e-3)
    steps = np.log(slope * np.diff(knots))
    parameters = np.concatenate([[slope * knots[0] + start[1]], steps])
    moments = np.zeros((2, len(parameters)))
    of_windows = add_windows(mass)
    weight = np.zeros(len(centres))
    best, least = parameters, np.inf
    for number in range(1, ROUNDS + 1):
        rises = np.exp(parameters[1:])
        odds = np.concatenate([[parameters[0]], parameters[0] + np.cumsum(rises)])
        p = 0.5 * (1 + np.tanh(0.5 * ((1 - along) * odds[place] + along * odds[place + 1])))
        if number % REFRESH == 1:
            clusters, least = _cluster(p), np.inf  # losses over other clusters cannot be compared
            sizes = np.bincount(clusters, minlength=CLUSTERS)
            weight = 1 / sizes[clusters] / np.count_nonzero(sizes)
        off = add_windows(mass * (p - matches)) / of_windows
        loss = float(weight @ np.abs(off))
        if loss < least:
            best, least = parameters, loss
        by_window = weight * np.sign(off) / of_windows
        slopes = add_windows(by_window) * mass * p * (1 - p)  # windows are even: they are their own transpose
        of_odds = np.bincount(place, (1 - along) * slopes, len(odds))
        of_odds += np.bincount(place + 1, along * slopes, len(odds))
        tail = np.cumsum(of_odds[::-1])[::-1]  # every later knot rises with a step
        gradient = np.concatenate([tail[:1], tail[1:] * rises])
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
        mean, square = moments[0] / (1 - 0.9**number), moments[1] / (1 - 0.999**number)
        parameters = parameters - RATE * mean / (np.sqrt(square) + 1e-12)
    odds = best[0] + np.concatenate([[0.0], np.cumsum(np.exp(best[1:]))])
    certain = float(weights.max())
    bound = float(np.log1p(-certain) - np.log(certain))  # nothing certain comes from a sample
    odds = np.clip(odds, -bound, bound)
    return Probability(
        kind="h_calibration", parameters={"scores": knots.tolist(), "log_odds": odds.tolist()}, prior=prior
    )


def fill_cells(scores: Float64s, genuine: Bools, weights: Float64s) -> tuple[Float64s, Float64s, Float64s]:
    """Mean score, fraction of matches and weight of each cell, float64 [cells]; empty ones are left out."""
    order = np.argsort(scores, kind="stable")
    ends = np.cumsum(weights[order])
    cell = np.minimum((ends / ends[-1] * CELLS).astype(np.int64), CELLS - 1)
    mass = np.bincount(cell, weights[order], CELLS).astype(np.float64)
    kept = mass > 0
    of_scores, of_matches = (
        np.bincount(cell, weights[order] * values[order], CELLS)[kept] / mass[kept]
        for values in (scores, genuine)
    )
    return of_scores, of_matches, mass[kept]


def add_windows(values: Float64s) -> Float64s:
    """Sums over windows around each cell, float64 [cells]; cut off at the ends."""
    half = WINDOW // 2
    total = np.zeros(len(values) + 2 * half + 1)
    np.cumsum(values, out=total[half + 1 : half + 1 + len(values)])
    total[half + 1 + len(values) :] = total[half + len(values)]
    return np.asarray(total[2 * half + 1 :] - total[: len(values)])


def _cluster(p: Float64s) -> Int64s:
    """Clusters of ascending probabilities by k-means, int64 [cells]."""
    centres = np.quantile(p, (np.arange(CLUSTERS) + 0.5) / CLUSTERS)
    for _ in range(20):
        codes = np.searchsorted((centres[1:] + centres[:-1]) / 2, p)
        counts = np.bincount(codes, minlength=CLUSTERS)
        sums = np.bincount(codes, p, CLUSTERS)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, p)
