"""Thresholds that real unknown queries prove."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import CalibrationRefused
from evaluation.calibration.select_threshold import _find_for_independent


def test_the_exact_bound_of_independent_queries_holds_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        scores = np.sort(draw.random(600).astype(np.float32))[::-1]
        threshold, found = _find_for_independent(scores, 0.03, 1.0, 0.95)
        assert found.estimate == np.mean(scores >= np.float32(threshold))
        assert found.lower <= found.estimate <= found.upper_bound <= 0.03
        rates.append(1 - threshold)  # the true rate of uniform scores
    assert np.mean(np.array(rates) <= 0.03) >= 0.93
    assert np.median(rates) > 0.5 * 0.03


def test_ties_are_matched_together_and_too_few_queries_are_refused() -> None:
    scores = np.repeat(np.float32([0.9, 0.5]), [40, 560])
    threshold, found = _find_for_independent(scores, 0.03, 1.0, 0.95)
    assert threshold > np.float32(0.9)
    assert found.estimate == 0
    with pytest.raises(CalibrationRefused, match="none of about 299 may be matched"):
        _find_for_independent(scores[:20], 0.01, 1.0, 0.95)
