"""The two-sample test by a classifier: what it sees, what it must not see, and how often chance fools it."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.drift.domain_classifier import RIDGE, measure_domain_shift
from evaluation.metrics.verification import compute_auc

DIMENSION = 12


def draw_rows(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, DIMENSION)) + shift
    return np.float32(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def draw_classes(seed: int, shares: np.ndarray, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around the centres of classes, drawn with these shares."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(0).normal(size=(len(shares), DIMENSION))
    groups = rng.choice(len(shares), n, p=shares / shares.sum())
    rows = centres[groups] + rng.normal(size=(n, DIMENSION)) + shift
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True)), groups


def test_the_further_the_samples_are_apart_the_larger_the_auc() -> None:
    reference = draw_rows(0, 400)
    found = [measure_domain_shift(reference, draw_rows(1, 400, shift)) for shift in (0.0, 0.15, 0.4, 2.0)]
    aucs = [shift.auc for shift in found if shift is not None]
    assert len(aucs) == 4
    assert aucs == sorted(aucs)
    assert abs(aucs[0] - 0.5) < 0.1
    assert aucs[-1] > 0.99


def test_the_distance_is_that_of_a_regression_with_a_mean_for_each_group() -> None:
    reference, recent = draw_rows(0, 150), draw_rows(1, 90, 0.2)
    of_reference, of_recent = np.arange(150) % 11, np.arange(90) % 15
    found = measure_domain_shift(reference, recent, of_reference, of_recent, min_rows=50)
    assert found is not None
    # twin: one group after the other, and the definition of each figure
    rows, labels, total = [], [], 0.0
    for group in range(11):
        old, new = reference[of_reference == group], recent[of_recent == group]
        own = np.concatenate([old, new]).astype(float)
        rows += list(own - own.mean(axis=0))
        labels += [-len(new) / len(own)] * len(old) + [len(old) / len(own)] * len(new)
        total += len(new)
    x, y = np.array(rows), np.array(labels)
    freedom = len(x) - 11
    covariance = x.T @ x / freedom
    covariance += RIDGE * np.trace(covariance) / DIMENSION * np.eye(DIMENSION)
    means = x.T @ y / (y @ y)
    distance = means @ np.linalg.inv(covariance) @ means
    assert found.distance == pytest.approx(distance)
    assert found.n == total


def test_the_auc_is_about_that_of_the_best_discriminant() -> None:
    """Two normal samples whose distance is known."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 4_000, 3)).astype(np.float32)
    found = measure_domain_shift(before, after + np.float32([0.6, 0, 0]))
    assert found is not None
    of_best = compute_auc(after[:, 0] + 0.6, before[:, 0])
    assert found.auc == pytest.approx(of_best, abs=0.01)


def test_what_is_particular_to_each_class_is_no_shift() -> None:
    """Queries of a class that differ from its items each in a way of their own, as new topics do."""
    rng = np.random.default_rng(0)
    groups, exceeded = np.arange(400) % 20, 0
    for seed in range(40):
        own = 0.5 * rng.normal(size=(20, DIMENSION))
        found = measure_domain_shift(
            draw_rows(seed, 400), np.float32(draw_rows(99 + seed, 400) + own[groups]), groups, groups
        )
        assert found is not None
        exceeded += found.find_lower(0.01) > 0.5
    assert exceeded <= 3, "0.4 are expected"


def test_another_mix_of_classes_is_no_shift_and_a_shift_of_every_class_is() -> None:
    even, uneven = np.ones(16), np.arange(1.0, 17.0) ** 2
    reference, of_reference = draw_classes(1, even, 1_200)
    recent, of_recent = draw_classes(2, uneven, 1_200)
    blind = measure_domain_shift(reference, recent)
    matched = measure_domain_shift(reference, recent, of_reference, of_recent)
    assert blind is not None
    assert matched is not None
    assert blind.find_lower(0.001) > 0.5, "the classes alone tell the samples apart"
    assert matched.find_lower(0.05) == 0.5
    moved, of_moved = draw_classes(3, uneven, 1_200, 0.5)
    shifted = measure_domain_shift(reference, moved, of_reference, of_moved)
    assert shifted is not None
    assert shifted.find_lower(1e-6) > 0.55


def test_chance_exceeds_its_bound_as_often_as_said() -> None:
    groups = np.arange(120) % 12
    exceeded = 0
    for seed in range(60):
        found = measure_domain_shift(draw_rows(2 * seed, 120), draw_rows(2 * seed + 1, 120), groups, groups)
        assert found is not None
        exceeded += found.find_lower(0.05) > 0.5
    assert exceeded <= 9, "3 are expected"


@pytest.mark.parametrize("n", [0, 5, 99])
def test_too_few_rows_give_no_figure(n: int) -> None:
    assert measure_domain_shift(draw_rows(0, 200), draw_rows(1, n)) is None


def test_samples_without_a_class_in_common_give_no_figure() -> None:
    rows = draw_rows(0, 200)
    assert measure_domain_shift(rows, rows, np.zeros(200, dtype=int), np.ones(200, dtype=int)) is None
