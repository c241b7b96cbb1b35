"""Debiased OPIS: the variance of class utilities without the noise of estimating them from few items.

The plain variance also counts that noise. Halve every class at random and measure each half on its own:
the noise of the halves is independent, so the mean product of their deviations has none of it (an unbiased
estimator of a between-group variance in the manner of split-half covariance; docs/specification.md,
Debiased OPIS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float64s, Int64s
from common.progress import Track, silent
from evaluation.kernels.level_kernels import add_halved_variances, draw_halves
from evaluation.metrics.threshold_grid import build_threshold_grid
from evaluation.pairs.ordered_items import OrderedItems
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import run_in_threads
from evaluation.pairs.threshold_levels import ThresholdLevels, sort_by_level

LANES = 32  # halvings that one pass over the pairs measures at a time
BATCHES = 2  # passes side by side; fixed, so that the result does not depend on the number of cores
MOST = 1024
RELATIVE_ERROR, ABSOLUTE_ERROR = 0.02, 1e-5
ITEMS_NEEDED = 4


@dataclass(frozen=True)
class DebiasedOpis:
    """Debiased variances of the class utilities.

    Attributes:
        classes: int64 [t]: the classes that could be halved.
        values: float64 [grids].
        by_class: float64 [grids, t]: each class's mean product of deviations; their mean is the value.
        halvings: how many were averaged.
        error: float64 [grids]: Monte-Carlo standard error of the values.
    """

    classes: Int64s
    values: Float64s
    by_class: Float64s
    halvings: int
    error: Float64s


def compute_debiased_opis(
    pairs: Pairs, levels: ThresholdLevels, grids: Int64s, c: float, seed: int, track: Track = silent
) -> DebiasedOpis | None:
    """Average over random halvings until their Monte-Carlo error is below 2 % of the value or 1e-5.

    ``grids`` int64 [k]: the grid of each ascending threshold. None for fewer than two classes to halve.
    """
    chosen = _select_halvable(pairs)
    if len(chosen) < 2:
        return None
    n_grids = int(grids.max()) + 1
    sizes = np.bincount(grids, minlength=n_grids)
    values: list[Float64s] = []
    by_class, weights = np.zeros((n_grids, len(chosen))), np.zeros((n_grids, len(chosen)))
    for round_ in track(iter(range(MOST // (LANES * BATCHES))), "halvings of classes"):
        results = run_in_threads(
            _measure_batch,
            [
                (pairs, levels, chosen, grids, c, np.random.SeedSequence([seed, round_, batch]))
                for batch in range(BATCHES)
            ],
        )
        for variances, products, terms in results:
            values.append(variances / sizes[:, None])
            by_class += products
            weights += terms
        drawn = np.concatenate(values, axis=1)
        error = drawn.std(axis=1, ddof=1) / np.sqrt(drawn.shape[1])
        mean = drawn.mean(axis=1)
        if np.all(error <= np.maximum(RELATIVE_ERROR * np.abs(mean), ABSOLUTE_ERROR)):
            break
    mean_products = np.divide(by_class, weights, out=np.zeros_like(by_class), where=weights > 0)
    return DebiasedOpis(chosen, mean, mean_products, drawn.shape[1], error)


def debias_log_far(
    sweep: Sweep, seed: int, track: Track = silent
) -> tuple[ThresholdLevels, DebiasedOpis | None]:
    """Pairs by level at the thresholds of log-FAR OPIS, and its debiased value; the sweep is used up."""
    ascending = np.sort(build_threshold_grid(sweep).log_far)
    levels, grids = sort_by_level(sweep, ascending), np.zeros(len(ascending), dtype=np.int64)
    return levels, compute_debiased_opis(sweep.pairs, levels, grids, 1.0, seed, track)


def _select_halvable(pairs: Pairs) -> Int64s:
    """Classes with at least four items, and so at least one genuine pair in either half."""
    enough = (pairs.genuine_per_class > 0) & (pairs.impostor_per_class > 0)
    if pairs.symmetric:
        return np.flatnonzero(enough & (pairs.a.sizes >= ITEMS_NEEDED))
    both = (pairs.a.sizes >= ITEMS_NEEDED // 2) & (pairs.b.sizes >= ITEMS_NEEDED // 2)
    return np.flatnonzero(enough & both)


def _measure_batch(
    pairs: Pairs,
    levels: ThresholdLevels,
    chosen: Int64s,
    grids: Int64s,
    c: float,
    seeds: np.random.SeedSequence,
) -> tuple[Float64s, Float64s, Float64s]:
    seed_a, seed_b = (int(s) for s in seeds.generate_state(2))
    halves_a = _draw_halves(pairs.a, seed_a)
    halves_b = halves_a if pairs.symmetric else _draw_halves(pairs.b, seed_b)
    genuine, impostor = (
        np.stack([count(halves_a[:, k] > 0, halves_b[:, k] > 0) for k in range(halves_a.shape[1])], axis=1)
        for count in (pairs.count_genuine, pairs.count_impostors)
    )
    n_grids = int(grids.max()) + 1
    variances = np.zeros((n_grids, LANES))
    by_class, weights = np.zeros((n_grids, len(chosen))), np.zeros((n_grids, len(chosen)))
    add_halved_variances(
        levels.impostor.a, levels.impostor.b, levels.impostor.starts,
        levels.genuine.a, levels.genuine.b, levels.genuine.starts,
        pairs.a.codes, pairs.b.codes, halves_a, halves_b, genuine, impostor,
        chosen, grids, c, variances, by_class, weights,
    )  # fmt: skip
    return variances, by_class, weights


def _draw_halves(side: OrderedItems, seed: int) -> NDArray[np.uint8]:
    """uint8 [n, 2 LANES]: in the first half, in the second half."""
    first = np.zeros((len(side), LANES), dtype=np.uint8)
    draw_halves(side.starts, seed % 2**32, LANES, first)
    return np.concatenate([first, 1 - first], axis=1)
