"""The course of the learning rate."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.config import ScheduleConfig
from training.optim.optimizer import compute_lr_factor


@pytest.mark.parametrize("shape", ["cosine", "one_cycle", "constant"])
def test_the_rate_rises_then_falls_within_its_bounds(shape: str) -> None:
    schedule = ScheduleConfig.model_validate({"shape": shape, "warmup": 0.1})
    factors = [compute_lr_factor(step, 100, schedule) for step in range(100)]
    assert min(factors) > 0
    assert max(factors) == pytest.approx(1)
    top = int(np.argmax(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(1 if shape == "constant" else 0.01)
