"""Array types by what an array holds; shapes are in the docstrings of the functions that take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
RowIndices = NDArray[np.int64]
"""Positions of rows in another array."""
Texts = NDArray[np.str_]
UnitVectors = NDArray[np.float32]
"""[n, d], rows of length 1."""
