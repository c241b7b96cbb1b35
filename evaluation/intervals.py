"""Intervals from resampling classes, the units that a new deployment would draw afresh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CLASSES_NEEDED = 5

Floats = NDArray[np.float64]


def resampling_weights(n: int, draws: int, seed: int) -> Floats:
    """float64 [draws, n]: how often each of n units is drawn, divided by n; rows sum to 1."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    return counts / n


def interval(
    products: Floats, u: Floats, seed: int, confidence: float = 0.95, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Two-sided percentile interval of a debiased variance of class utilities.

    Returns:
        None for fewer than five classes.
    """
    if len(products) < CLASSES_NEEDED:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled_variances(products, u, seed, draws), [tail, 1 - tail])
    return float(low), float(high)


def resampled_variances(products: Floats, u: Floats, seed: int, draws: int = DRAWS) -> Floats:
    """Debiased variances of resampled classes, float64 [draws].

    A resample's variance is the mean of its classes' products of deviations less the square of the
    shift of its mean utility, which the products' common mean does not know of. The shift takes one
    T-th of the variance on average; that much is given back, so that the values stay around the estimate.

    Args:
        products: float64 [classes]: mean product of a class's deviations in the two halves.
        u: float64 [classes, grid]: utilities of the same classes.
    """
    n = len(products)
    deviations = u - u.mean(axis=0)
    expected = float(np.square(deviations).mean()) / n
    values = np.empty(draws)
    for first in range(0, draws, 200):
        weights = resampling_weights(n, min(200, draws - first), seed + first)
        shift = np.square(weights @ deviations).mean(axis=1)
        values[first : first + len(weights)] = weights @ products - shift + expected
    return values
