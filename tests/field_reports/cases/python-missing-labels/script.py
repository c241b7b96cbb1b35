"""Missing labels are named by row, in a list as in a masked array."""

import numpy as np
import pytest

import limen

rows = np.random.default_rng(0).normal(size=(4, 3))
for labels in (["a", "b", float("nan"), "b"], np.ma.array(["a", "b", "x", "b"], mask=[0, 0, 1, 0])):
    with pytest.raises(limen.InputError, match="row 2 of labels has no value"):
        limen.evaluate(rows, labels)
