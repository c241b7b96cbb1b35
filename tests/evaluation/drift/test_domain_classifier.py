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


def test_the_auc_is_that_of_a_plain_discriminant() -> None:
    reference, recent = draw_rows(0, 150), draw_rows(1, 150, 0.2)
    groups = np.arange(150) % 10
    found = measure_domain_shift(reference, recent, groups, groups, permutations=2)
    assert found is not None
    # twin: every step again, one labelling, with the definition of each figure
    rows = np.concatenate([reference, recent]).astype(float)
    both, labels = np.concatenate([groups, groups]), np.repeat([False, True], 150)
    for group in range(10):
        rows[both == group] -= rows[both == group].mean(axis=0)
    best = []
    for held_out in range(2**10):
        # the folds are whole groups; which ones is the test's own business, so all halvings are allowed
        chosen = [bool(held_out >> group & 1) for group in range(10)]
        if sum(chosen) != 5:
            continue
        fold, aucs = np.array(chosen)[both], []
        for learn in (fold, ~fold):
            learned = rows[learn] - rows[learn].mean(axis=0)
            covariance = learned.T @ learned / len(learned)
            covariance += RIDGE * np.trace(covariance) / DIMENSION * np.eye(DIMENSION)
            means = [learned[labels[learn] == side].mean(axis=0) for side in (True, False)]
            scores = rows[~learn] @ np.linalg.solve(covariance, means[0] - means[1])
            aucs.append(compute_auc(scores[labels[~learn]], scores[~labels[~learn]]))
        best.append(np.mean(aucs))
    assert min(abs(found.auc - value) for value in best) < 1e-9


def test_another_mix_of_classes_is_no_shift_and_a_shift_of_every_class_is() -> None:
    even, uneven = np.ones(8), np.arange(1.0, 9.0) ** 2
    reference, of_reference = draw_classes(1, even, 1_200)
    recent, of_recent = draw_classes(2, uneven, 1_200)
    blind = measure_domain_shift(reference, recent)
    matched = measure_domain_shift(reference, recent, of_reference, of_recent)
    assert blind is not None
    assert matched is not None
    assert blind.find_lower(0.001) > 0.5, "the classes alone tell the samples apart"
    assert matched.find_lower(0.05) < 0.5
    moved, of_moved = draw_classes(3, uneven, 1_200, 0.5)
    shifted = measure_domain_shift(reference, moved, of_reference, of_moved)
    assert shifted is not None
    assert shifted.find_lower(1e-6) > 0.55


def test_chance_exceeds_its_bound_as_often_as_said() -> None:
    groups = np.arange(120) % 12
    exceeded = 0
    for seed in range(60):
        found = measure_domain_shift(
            draw_rows(2 * seed, 120), draw_rows(2 * seed + 1, 120), groups, groups, permutations=60, seed=seed
        )
        assert found is not None
        exceeded += found.find_lower(0.05) > 0.5
    assert exceeded <= 9, "3 are expected"


@pytest.mark.parametrize("n", [0, 5, 99])
def test_too_few_rows_give_no_figure(n: int) -> None:
    assert measure_domain_shift(draw_rows(0, 200), draw_rows(1, n)) is None


def test_samples_without_a_class_in_common_give_no_figure() -> None:
    rows = draw_rows(0, 200)
    assert measure_domain_shift(rows, rows, np.zeros(200, dtype=int), np.ones(200, dtype=int)) is None
