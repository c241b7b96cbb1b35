"""Reading fvecs and ivecs: each row is its int32 length, then its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_vectors(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """Rows [n, d] of an fvecs (float32) or ivecs (int32) file."""
    raw = np.fromfile(path, dtype="<i4")
    return raw.reshape(-1, raw[0] + 1)[:, 1:].copy().view(dtype)
