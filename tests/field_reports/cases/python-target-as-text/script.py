"""A target that is no number is refused in a sentence."""

import numpy as np
import pytest

import limen

rows = np.random.default_rng(0).normal(size=(4, 3))
with pytest.raises(limen.InputError, match=r"target_far must be a number, found '0.01'"):
    limen.calibrate(rows, list("aabb"), target_far="0.01")
