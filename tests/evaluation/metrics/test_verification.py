"""AUC and equal error rate of plain scores against loops; the figures of a report: ``test_evaluate.py``."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evaluation.metrics.verification import (
    compute_auc,
    find_equal_error,
    interpolate_equal_error,
    sum_products,
    verify_scores,
)


def test_products_of_large_counts_are_exact() -> None:
    a = np.array([3_000_000_000, 5, 0], dtype=np.int64)
    b = np.array([4_000_000_000, 7, 9], dtype=np.int64)
    assert sum_products(a, b) == 3_000_000_000 * 4_000_000_000 + 35


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor scores with ties among and between them."""
    rng = np.random.default_rng(0)
    return rng.integers(2, 12, 40) / 10, rng.integers(0, 7, 60) / 10


def test_auc_counts_ties_one_half(scores: tuple[np.ndarray, np.ndarray]) -> None:
    genuine, impostor = scores
    wins = sum(1.0 if g > i else 0.5 if g == i else 0.0 for g in genuine for i in impostor)
    assert compute_auc(genuine, impostor) == pytest.approx(wins / (40 * 60), abs=1e-12)
    assert compute_auc(np.array([1.0]), np.array([0.0])) == 1.0
    assert compute_auc(np.array([0.5]), np.array([0.5])) == 0.5


def test_the_area_is_scikit_learns_ties_included() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 200) / 4, rng.random(200) < 0.3
    area = compute_auc(scores[positive], scores[~positive])
    assert area == pytest.approx(roc_auc_score(positive, scores))


def test_the_equal_error_lies_where_the_line_between_two_points_meets_the_diagonal() -> None:
    thresholds, far, frr = np.array([0.1, 0.2, 0.3]), np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.25, 0.5])
    eer, threshold = find_equal_error(thresholds, far, frr)
    step = 0.25 / (0.25 + 0.5)
    assert eer == pytest.approx(0.5 - step * 0.5)
    assert eer == pytest.approx(0.25 + step * 0.25)
    assert threshold == 0.2, "the nearer of the two"
    assert find_equal_error(thresholds, np.array([1, 0.5, 0.25]), frr)[1] == 0.3, "the higher if equal"


def test_the_point_of_accepting_nothing_counts() -> None:
    """Every score tied: FAR 1 and FRR 0, or FAR 0 and FRR 1."""
    assert find_equal_error(np.array([0.5]), np.array([1.0]), np.array([0.0])) == (0.5, 0.5)


def test_points_are_interpolated_elementwise_and_a_repeated_one_is_itself() -> None:
    far, next_far = np.array([0.4, 0.3]), np.array([0.0, 0.3])
    frr, next_frr = np.array([0.0, 0.2]), np.array([0.4, 0.2])
    np.testing.assert_allclose(interpolate_equal_error(far, frr, next_far, next_frr), [0.2, 0.3])


def test_figures_of_scores_at_hand_are_those_of_a_loop(scores: tuple[np.ndarray, np.ndarray]) -> None:
    genuine, impostor = scores
    figures = verify_scores(genuine, impostor)
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    far = np.array([np.mean(impostor >= t) for t in thresholds])
    frr = np.array([np.mean(genuine < t) for t in thresholds])
    assert figures.curve.threshold == thresholds[::-1].tolist()
    np.testing.assert_allclose(figures.curve.far, far[::-1])
    np.testing.assert_allclose(figures.curve.frr, frr[::-1])
    crossing = int(np.flatnonzero(far >= frr)[-1])
    assert min(frr[crossing], far[crossing + 1]) <= figures.eer <= max(frr[crossing + 1], far[crossing])
    assert figures.eer_threshold in thresholds[crossing : crossing + 2]
    assert figures.auc == compute_auc(genuine, impostor)
    for key, tar in figures.tar_at_far.items():
        assert tar == pytest.approx(max((1 - frr)[far <= float(key)], default=0.0))
