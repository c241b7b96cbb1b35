"""Bounds over classes: the algebra against loops, and coverage on a small scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from evaluation.calibration import bootstrap_bounds
from evaluation.calibration.bootstrap_bounds import (
    PairFractions,
    build_class_matrix,
    estimate_class_fraction_interval,
    estimate_pair_fraction_interval,
)
from evaluation.metrics.class_bootstrap import draw_classes


def draw_accepted(rng: np.random.Generator, n: int, sizes: np.ndarray, rate: float) -> np.ndarray:
    upper = np.triu(rng.binomial(np.outer(sizes, sizes).astype(int), rate), 1).astype(float)
    return upper + upper.T


def test_the_fraction_and_its_parts_agree_with_loops() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 12).astype(float)
    matrix = draw_accepted(rng, 12, sizes, 0.1)
    weights = draw_classes(12, 3, 50)
    fractions = PairFractions([matrix], sizes, sizes, weights)
    pairs = np.outer(sizes, sizes)
    np.fill_diagonal(pairs, 0)
    value = matrix.sum() / pairs.sum()
    assert fractions.values[0] == pytest.approx(value)
    deviation = matrix - value * pairs
    rows = deviation.sum(1) / 10
    residual = deviation - rows[:, None] - rows[None, :]
    np.fill_diagonal(residual, 0)
    np.testing.assert_allclose(residual.sum(1), 0, atol=1e-9)
    np.testing.assert_allclose(fractions.rows[0], rows)
    assert fractions.residual[0, 0] == pytest.approx((residual**2).sum())
    for b, drawn in enumerate(weights):
        total = count = 0.0
        for i in range(12):
            for j in range(12):
                if i != j:
                    count += drawn[i] * drawn[j] * matrix[i, j]
                    total += drawn[i] * drawn[j] * pairs[i, j]
        assert value + fractions.drawn[0][0, b] == pytest.approx(count / total)


def test_many_classes_reach_the_same_bound_by_sparse_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 40, (2, 300))
    keep = first != second
    first, second = first[keep], second[keep]
    sizes, weights = np.full(40, 8.0), draw_classes(40, 0, 200)
    dense = build_class_matrix(first, second, np.full(len(first), 2.0), 40)
    monkeypatch.setattr(bootstrap_bounds, "DENSE_CLASSES", 0)
    thin = build_class_matrix(first, second, np.full(len(first), 2.0), 40)
    assert sparse.issparse(thin)
    np.testing.assert_array_equal(thin.toarray(), dense)
    dense_interval, sparse_interval = (
        estimate_pair_fraction_interval(matrix, sizes, weights, 0.95) for matrix in (dense, thin)
    )
    assert dense_interval.upper_bound == pytest.approx(sparse_interval.upper_bound)
    assert dense_interval.lower < dense_interval.estimate < dense_interval.upper_bound < dense_interval.upper


def test_independent_pairs_have_binomial_width_not_three_times_its_variance() -> None:
    """Resampling classes naively would give about sqrt(3) times this width."""
    rng = np.random.default_rng(2)
    sizes, weights = np.full(80, 4.0), draw_classes(80, 0)
    widths = []
    for _ in range(20):
        interval = estimate_pair_fraction_interval(draw_accepted(rng, 80, sizes, 0.02), sizes, weights, 0.95)
        widths.append(interval.upper - interval.lower)
    binomial = 2 * 1.96 * np.sqrt(0.02 * 0.98 / (80 * 79 / 2 * 16))
    assert 0.9 < np.median(widths) / binomial < 1.3


def test_a_class_in_a_dense_region_widens_the_bound() -> None:
    rng = np.random.default_rng(3)
    sizes, weights = np.full(60, 4.0), draw_classes(60, 0)
    even = draw_accepted(rng, 60, sizes, 0.03)
    uneven = draw_accepted(rng, 60, sizes, 0.01)
    for hub in (3, 17):
        uneven[hub], uneven[:, hub] = 8.0, 8.0
        uneven[hub, hub] = 0
    uneven *= even.sum() / uneven.sum()
    assert (
        estimate_pair_fraction_interval(uneven, sizes, weights, 0.95).upper_bound
        > 1.5 * estimate_pair_fraction_interval(even, sizes, weights, 0.95).upper_bound
    )


def test_nothing_accepted_and_everything_alike_have_no_width() -> None:
    sizes, weights = np.full(20, 2.0), draw_classes(20, 0, 100)
    nothing = estimate_pair_fraction_interval(np.zeros((20, 20)), sizes, weights, 0.95)
    assert (nothing.estimate, nothing.upper_bound) == (0.0, 0.0)
    every = estimate_class_fraction_interval(np.full(20, 1.0), np.full(20, 1.0), weights, 0.95)
    assert (every.lower, every.estimate, every.upper_bound) == (1.0, 1.0, 1.0)


def test_the_interval_of_a_class_fraction_covers() -> None:
    rng = np.random.default_rng(4)
    weights = draw_classes(60, 0, 500)
    inside = within = 0
    for _ in range(200):
        rates = rng.beta(1, 9, 60)
        events = rng.binomial(28, rates).astype(float)
        interval = estimate_class_fraction_interval(events, np.full(60, 28.0), weights, 0.95)
        inside += interval.lower <= 0.1 <= interval.upper
        within += interval.upper_bound >= 0.1
    assert 0.9 <= inside / 200 <= 0.99
    assert within / 200 >= 0.91
