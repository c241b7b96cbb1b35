"""OPIS in its forms: worked numbers, and what it is there to do."""

from __future__ import annotations

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.opis import OpisSettings, compute_epsilon_opis, compute_opis
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import MappedScorer, evaluate, make_nine_points, make_sessions, measure_opis

TPR = np.array([[2 / 3, 1, 1], [0, 0, 2 / 3], [1 / 3, 1 / 3, 1 / 3]])
TNR = np.array([[1, 1, 8 / 9], [1, 8 / 9, 7 / 9], [1, 8 / 9, 8 / 9]])


def test_worked_example() -> None:
    u = compute_utility(TNR, TPR, 1.0)
    np.testing.assert_allclose(u[0], [0.8, 1, 0.941176], atol=1e-6)
    np.testing.assert_allclose(u[1], [0, 0, 0.717949], atol=1e-6)
    np.testing.assert_allclose(u[2], [0.5, 0.484848, 0.484848], atol=1e-6)
    assert compute_opis(u) == pytest.approx(0.103439, abs=1e-6)
    assert compute_epsilon_opis(u, 1 / 3) == pytest.approx(0.616078, abs=1e-6)
    assert compute_epsilon_opis(u, 1 / 3, "worst-mean") == pytest.approx(0.161855, abs=1e-6)


def test_nine_points_with_another_weight_of_specificity() -> None:
    report = evaluate(make_nine_points(), settings=OpisSettings(c=2.0))
    assert report.consistency.opis == pytest.approx(0.125826, abs=1e-6)
    assert report.consistency.c == 2.0


def test_nine_points_with_a_grid_of_cosines() -> None:
    """A grid that is uniform in score instead of in distance, as for every kind but cosine."""
    consistency = measure_opis(arrange(make_nine_points(), scorer=MappedScorer(lambda s: 2 * s)))
    assert consistency.opis == pytest.approx(0.104988, abs=1e-6)


def test_log_far_form_does_not_change_under_a_monotone_transform() -> None:
    items = make_sessions(5, 15, 6)
    plain = measure_opis(arrange(items))
    cubed = measure_opis(arrange(items, scorer=MappedScorer(lambda s: s**3 * 7 - 2)))
    assert cubed.opis_logfar == pytest.approx(plain.opis_logfar, abs=1e-12)
    assert cubed.opis_logfar_debiased == pytest.approx(plain.opis_logfar_debiased, abs=1e-12)
    assert cubed.opis_logfar_ci == pytest.approx(plain.opis_logfar_ci, abs=1e-12)
    assert cubed.opis != pytest.approx(plain.opis, abs=1e-4)
    assert cubed.calibration_range.distance is None


def test_unequal_spreads_are_seen_and_equal_ones_are_not() -> None:
    draw = np.random.default_rng(1)
    classes, size = 40, 8
    centres = np.repeat(np.linalg.qr(draw.normal(size=(64, classes)))[0].T, size, axis=0)
    labels = np.repeat(np.arange(classes), size)
    equal = centres + 0.12 * draw.normal(size=centres.shape)
    unequal = centres + np.repeat(draw.uniform(0.05, 0.25, classes), size)[:, None] * draw.normal(
        size=centres.shape
    )
    same, different = (
        measure_opis(arrange(EmbeddingSet.from_arrays(vectors, labels))) for vectors in (equal, unequal)
    )
    assert same.opis_ci[0] < 0.002
    assert different.opis_ci[0] > 10 * abs(same.opis_debiased or 0.0)
    assert same.noise_floor == pytest.approx((same.opis or 0) - (same.opis_debiased or 0))


def test_small_classes_are_named_in_the_reasons() -> None:
    items = make_sessions(0, 12, 5)
    report = evaluate(items)
    assert any("fewer than 8 items" in reason for reason in report.reasons)
    report = evaluate(items.subset(np.arange(len(items)) % 5 < 3))
    assert report.consistency.opis_debiased is None
    assert any("at least 4 items" in reason for reason in report.reasons)
