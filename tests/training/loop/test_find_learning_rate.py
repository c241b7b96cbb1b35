"""The rate that a range test suggests."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputError
from tests.training.runs import MakeConfig
from training.loop.find_learning_rate import find_learning_rate, round_rate, suggest_rate


def test_the_steepest_fall_before_the_lowest_point_is_suggested() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    losses = 3 - 2 / (1 + (1e-3 / rates) ** 2) + 50 * np.maximum(0, rates - 0.05)
    assert suggest_rate(rates.tolist(), losses.tolist()) == pytest.approx(1e-3, rel=0.2)
    with pytest.raises(InputError, match="rose from the first rate on"):
        suggest_rate(rates.tolist(), np.arange(100.0).tolist())


def test_rates_are_rounded_downwards() -> None:
    assert [round_rate(rate) for rate in (1e-3, 1.9e-3, 6.9e-2, 9.9e-4)] == pytest.approx(
        [1e-3, 1.5e-3, 5e-2, 7e-4]
    )


def test_rates_rise_and_losses_are_those_of_steps(small: MakeConfig) -> None:
    sweep = find_learning_rate(small(), steps=12)
    assert len(sweep.rates) == len(sweep.losses) > 2
    assert sweep.rates[0] == pytest.approx(1e-6)
    assert sweep.rates == sorted(sweep.rates)
    assert np.isfinite(sweep.losses).all()
    again = find_learning_rate(small(), steps=12)
    assert again == sweep
