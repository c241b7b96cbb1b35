"""Resampling classes, and the intervals from it."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics import class_bootstrap
from evaluation.metrics.class_bootstrap import compute_opis_interval, draw_classes


def test_a_draw_has_as_many_classes_as_there_are() -> None:
    drawn = draw_classes(7, seed=3, draws=400)
    assert drawn.shape == (400, 7)
    np.testing.assert_array_equal(drawn.sum(axis=1), 7)
    np.testing.assert_array_equal(drawn, draw_classes(7, seed=3, draws=400))
    np.testing.assert_array_equal(drawn, class_bootstrap._draw(7, 3, 400), "those kept are those drawn anew")
    with pytest.raises(ValueError, match="read-only"):
        drawn[0, 0] = 1.0
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.2)


def test_an_interval_needs_five_classes() -> None:
    u = np.random.default_rng(0).random((4, 9))
    assert compute_opis_interval(np.ones(4), u, 0) is None
    low, high = compute_opis_interval(np.arange(30) / 30, np.zeros((30, 9)), 0) or (0.0, 0.0)
    assert low < np.arange(30).mean() / 30 < high
