"""A column of another shape is refused in a sentence."""

import numpy as np
import pytest

import limen

rows = np.random.default_rng(0).normal(size=(4, 3))
with pytest.raises(limen.InputError, match=r"one value a row, found shape \(4, 2\)"):
    limen.evaluate(rows, list("aabb"), exclude_same=np.zeros((4, 2)))
