"""What compiled loops share: no interpreter's lock, so every thread can run one on outputs of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
compiled = cast("Callable[[F], F]", numba.njit(nogil=True, cache=True, error_model="numpy"))


@compiled
def bin_of(score: np.float32, scale: np.float32, base: np.float32, last: np.float32) -> np.uint32:
    """Whole numbers below 2^24 are exact in float32, and stay in vector registers there; unsigned
    positions need no look at whether they count from the end."""
    return np.uint32(np.int32(min(max(np.floor(score * scale) - base, np.float32(0)), last)))
