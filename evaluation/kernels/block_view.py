"""Where a block of scores lies among all pairs: what every compiled loop over a block starts from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.array_types import Float32s, Int64s
from evaluation.kernels.numba_support import compiled


class Place(NamedTuple):
    """A block of scores and which of them are impostor pairs.

    Attributes:
        scores: float32 [m, n].
        row0, column0: position of the first row in ``a`` and of the first column in ``b``.
        spans: int64 [a, 3]: the impostor columns of a row are s[0]:s[1] and from s[2] on.
        codes_a, codes_b: int64: the class of every item.
        groups_a, groups_b: int64: pairs within a group are left out; empty where there are no groups.
    """

    scores: Float32s
    row0: int
    column0: int
    spans: Int64s
    codes_a: Int64s
    codes_b: Int64s
    groups_a: Int64s
    groups_b: Int64s


@compiled
def run_of(place: Place, r: int, part: int) -> tuple[int, int]:
    """The columns of the block's row r that are impostors: its first (0) or second (1) run."""
    n = place.scores.shape[1]
    span = place.spans[place.row0 + r]
    first = max(0, span[2 * part] - place.column0)
    stop = n if part else min(n, span[1] - place.column0)
    return first, max(first, stop)


@compiled
def left_out(place: Place, r: int, column: int) -> bool:
    """Whether the pair lies within one group."""
    if len(place.groups_a) == 0:
        return False
    return bool(place.groups_a[place.row0 + r] == place.groups_b[place.column0 + column])


@compiled
def levels_reached(score: np.float32, ascending: Float32s) -> int:
    """How many of the thresholds the score reaches."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] <= score:
            low = middle + 1
        else:
            high = middle
    return low
