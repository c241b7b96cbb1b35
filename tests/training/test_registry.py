"""Registered entries, built with checked parameters."""

from __future__ import annotations

import inspect

import pytest

from common.errors import ConfigError
from training.registry import build_entry


def test_a_parameter_without_default_must_be_given() -> None:
    def make(margin: float, size: int) -> float:
        return margin * size

    assert build_entry(make, {"margin": 2.0}, "loss (x)", size=3) == 6
    with pytest.raises(ConfigError, match=r"loss \(x\): parameter 'margin' must be given"):
        build_entry(make, {}, "loss (x)", size=3)
    assert "size" in inspect.signature(make).parameters
