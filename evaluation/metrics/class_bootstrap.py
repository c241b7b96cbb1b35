"""Bootstrap over classes, which a new deployment would draw afresh: the draws, and the interval of OPIS."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from common.array_types import Float64s

REPLICATES = 1000  # of a bound
OPIS_DRAWS = 2000  # of an interval of OPIS
CLASSES_NEEDED = 5
CONFIDENCE = 0.95  # of an interval of OPIS
DRAWS_AT_ONCE = 200
KEPT_CELLS = 2**19  # of draws that are kept for the next who asks for the same: 4 MiB each
KEPT_DRAWS = 8


def draw_classes(n: int, seed: int, draws: int = REPLICATES) -> Float64s:
    """float64 [draws, n]: how often each of n classes is drawn, with replacement; rows sum to n."""
    return (_keep_draws if n * draws <= KEPT_CELLS else _draw)(n, seed, draws)


def _draw(n: int, seed: int, draws: int) -> Float64s:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=draws).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


_keep_draws = lru_cache(KEPT_DRAWS)(_draw)


def compute_opis_interval(products: Float64s, u: Float64s, seed: int) -> tuple[float, float] | None:
    """Two-sided 95 % bootstrap-t interval of a debiased OPIS (docs/specification.md, Intervals).

    A few classes carry most of a variance, so its estimate is skewed and correlated with its own
    standard error; percentiles of resampled values then cover too little (83 % instead of 95 % with 30
    classes in the simulation of ``benchmarks/consistency.py``), studentised ones account for it (Efron &
    Tibshirani 1993, section 12.5). ``products`` and ``u`` as in ``resample_variances``; None for few classes.
    """
    n = len(products)
    if n < CLASSES_NEEDED:
        return None
    value = float(products.mean())
    error = float(products.std(ddof=1)) / np.sqrt(n)
    if error == 0:
        return value, value
    values, errors = resample_variances(products, u, seed)
    # a resample of few distinct classes may have next to no error of its own
    ratios = (values - value) / np.maximum(errors, 0.05 * error)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return value - float(high) * error, value - float(low) * error


def resample_variances(products: Float64s, u: Float64s, seed: int) -> tuple[Float64s, Float64s]:
    """Debiased variances of resampled classes and their standard errors, float64 [draws] each.

    A resample's variance is the mean of its classes' products of deviations less the square of the
    shift of its mean utility, which the products' common mean does not contain. The shift takes one
    T-th of the variance on average; that much is given back, so that the values stay around the estimate.

    Args:
        products: float64 [classes]: mean product of a class's deviations in the two halves.
        u: float64 [classes, grid]: utilities of the same classes.
    """
    n = len(products)
    deviations = u - u.mean(axis=0)
    expected = float(np.square(deviations).mean()) / n
    values, errors = np.empty(OPIS_DRAWS), np.empty(OPIS_DRAWS)
    for first in range(0, OPIS_DRAWS, DRAWS_AT_ONCE):
        weights = draw_classes(n, seed + first, min(DRAWS_AT_ONCE, OPIS_DRAWS - first)) / n
        shift = np.square(weights @ deviations).mean(axis=1)
        rows, means = slice(first, first + len(weights)), weights @ products
        values[rows] = means - shift + expected
        errors[rows] = np.sqrt(np.maximum(weights @ np.square(products) - np.square(means), 0) / (n - 1))
    return values, errors
