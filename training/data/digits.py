"""``builtin: digits``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def digits() -> tuple[NDArray[np.uint8], list[str], list[str]]:
    """scikit-learn's 1,797 handwritten digits: uint8 [n, 8, 8], dark on white; labels; ids."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (255 - np.round(bunch.images * (255 / 16))).astype(np.uint8)
    return pixels, [str(label) for label in bunch.target], [f"digit-{row:04d}" for row in range(len(pixels))]
