"""The accept rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def accepts(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """True where ``score >= threshold``, both as float32: a score exactly at the threshold is accepted."""
    return np.asarray(np.asarray(scores, dtype=np.float32) >= np.float32(threshold))
