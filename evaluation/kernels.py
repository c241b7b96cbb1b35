"""Compiled inner loops over blocks of scores. Callers give each thread its own output arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
compiled = cast("Callable[[F], F]", numba.njit(nogil=True, cache=True, error_model="numpy"))

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


@compiled
def count_pairs_at(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
    ascending: Floats,
    counts: Integers,
) -> None:
    """Add each impostor pair of a block to both of its classes, at the number of thresholds it reaches.

    ``counts`` int64 [classes, k + 1]; column m is for pairs that reach exactly m of the k thresholds.
    """
    m = scores.shape[1]
    k = len(ascending)
    grouped = len(groups_a) > 0
    for r in share:
        i = row0 + r
        code = codes_a[i]
        stops = (spans[i, 1] - column0, m)
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            for column in range(first, min(m, stops[part])):
                j = column0 + column
                if grouped and groups_a[i] == groups_b[j]:
                    continue
                s = scores[r, column]
                if k == 0 or s < ascending[0]:
                    continue
                low, high = 0, k
                while low < high:
                    middle = (low + high) // 2
                    if ascending[middle] <= s:
                        low = middle + 1
                    else:
                        high = middle
                counts[code, low] += 1
                counts[codes_b[j], low] += 1
