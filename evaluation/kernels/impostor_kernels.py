"""A block of scores with its impostor pairs, and compiled loops over them: histograms, top pairs, sums.

Each takes ``rows``, int64: the rows of the block that this call walks; several calls walk a block together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, Int64s
from evaluation.kernels.compiled import compiled, kernel
from evaluation.kernels.scalar_kernels import find_bin


@compiled
def count_at_levels(view: BlockView, rows: Int64s, ascending: Float32s, counts: Int64s) -> None:
    """Add each impostor pair of a block to both of its classes, at the number of thresholds it reaches.

    ``counts`` int64 [classes, k + 1]; column m is for pairs that reach exactly m of the k thresholds.
    """
    lowest = ascending[0] if len(ascending) else np.float32(np.inf)
    for r in rows:
        code = view.codes_a[view.row0 + r]
        for part in range(2):
            first, stop = find_run(view, r, part)
            for column in range(first, stop):
                s = view.scores[r, column]
                if s >= lowest and not is_excluded(view, r, column):
                    level = np.searchsorted(ascending, s, side="right")
                    counts[code, level] += 1
                    counts[view.codes_b[view.column0 + column], level] += 1


@compiled
def scan_rows(
    view: BlockView,
    rows: Int64s,
    scale: np.float32,
    base: np.float32,
    histogram: NDArray[np.uint32],
    floor: np.float32,
    top_a: NDArray[Any],
    top_b: NDArray[Any],
    top_scores: Float32s,
) -> int:
    """Histogram of a block's impostor scores, and the pairs that reach ``floor`` with their positions.

    The outputs ``top_*`` must have room for every pair of the rows; returns how many are filled.
    """
    last = np.float32(len(histogram) - 1)
    bins = np.empty(view.scores.shape[1], dtype=np.uint32)
    filled = np.uint64(0)
    for r in rows:
        i = view.row0 + r
        for part in range(2):
            first, stop = find_run(view, r, part)
            line = view.scores[r, first:stop]  # counted from 0: an index that may be negative is slow
            column0 = view.column0 + first
            for k in range(len(line)):
                bins[k] = find_bin(line[k], scale, base, last)
            if len(view.groups_a):
                for k in range(len(line)):
                    if not is_excluded(view, r, first + k):
                        histogram[bins[k]] += np.uint32(1)
                        if line[k] >= floor:
                            top_a[filled] = i
                            top_b[filled] = column0 + k
                            top_scores[filled] = line[k]
                            filled += np.uint64(1)
            else:
                for k in range(len(line)):
                    histogram[bins[k]] += np.uint32(1)
                for k in range(len(line)):  # branch-free: one pair in ten is kept, unpredictably
                    top_a[filled] = i
                    top_b[filled] = column0 + k
                    top_scores[filled] = line[k]
                    filled += np.uint64(line[k] >= floor)
    return int(filled)


@compiled
def collect_bins(
    view: BlockView, rows: Int64s, scale: np.float32, base: np.float32, wanted: Bools, collected: Float32s
) -> int:
    """Write a block's impostor scores that lie in wanted bins to ``collected``; returns how many they are."""
    last = np.float32(len(wanted) - 1)
    filled = 0
    for r in rows:
        for part in range(2):
            first, stop = find_run(view, r, part)
            for column in range(first, stop):
                s = view.scores[r, column]
                if wanted[find_bin(s, scale, base, last)] and not is_excluded(view, r, column):
                    collected[filled] = s
                    filled += 1
    return filled


@compiled
def count_beaten_genuine(
    view: BlockView, rows: Int64s, scale: np.float32, base: np.float32, starts: Int64s, genuine: Float32s
) -> int:
    """Sum over impostor pairs of 2 x genuine scores above + genuine scores equal, among those of their bin.

    ``genuine`` float32, ascending; those of bin b are from ``starts[b]`` up to ``starts[b + 1]``.
    """
    last = np.float32(len(starts) - 2)
    total = 0
    for r in rows:
        for part in range(2):
            first, stop = find_run(view, r, part)
            for column in range(first, stop):
                s = view.scores[r, column]
                b = find_bin(s, scale, base, last)
                if starts[b] < starts[b + 1] and not is_excluded(view, r, column):
                    inside = genuine[starts[b] : starts[b + 1]]
                    total += 2 * len(inside) - np.searchsorted(inside, s, side="left")
                    total -= np.searchsorted(inside, s, side="right")
    return total


@compiled
def sum_gaussian_kernels(view: BlockView, rows: Int64s) -> float:
    """Sum over a block's impostor pairs of exp(4 s - 4), that is exp(-2 |x - y|^2).

    exp(4 s) = exp(s / 2)^8; the series of degree 12 is exact to 1e-13 for |s| <= 1 and, unlike
    exp itself, runs in vector registers.
    """
    total = 0.0
    for r in rows:
        for part in range(2):
            first, stop = find_run(view, r, part)
            if len(view.groups_a):
                for column in range(first, stop):
                    if not is_excluded(view, r, column):
                        total += np.exp(4.0 * view.scores[r, column] - 4.0)
            else:
                total += _sum_exponentials(view.scores[r, first:stop])
    return total


@kernel(fastmath=True)
def _sum_exponentials(similarities: Float32s) -> float:
    total = 0.0
    for k in range(len(similarities)):
        x = 0.5 * np.float64(similarities[k])
        p = 1.0 + x / 12.0
        for term in (11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0):
            p = 1.0 + x * p / term
        p = p * p
        p = p * p
        total += p * p
    return float(total * np.exp(-4.0))


class BlockView(NamedTuple):
    """A block of scores and which of them are impostor pairs.

    Attributes:
        scores: float32 [m, n].
        row0, column0: position of the first row in ``a`` and of the first column in ``b``.
        spans: int64 [a, 3]: the impostor columns of a row are s[0]:s[1] and from s[2] on.
        codes_a, codes_b: int64: the class of every item.
        groups_a, groups_b: int64 [a or b, k]: pairs that share the group of any column are excluded; empty
            where there are no groups.
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
def find_run(view: BlockView, r: int, part: int) -> tuple[int, int]:
    """The columns of the block's row r that are impostors: its first (0) or second (1) run."""
    n = view.scores.shape[1]
    span = view.spans[view.row0 + r]
    first = max(0, span[2 * part] - view.column0)
    stop = n if part else min(n, span[1] - view.column0)
    return first, max(first, stop)


@compiled
def is_excluded(view: BlockView, r: int, column: int) -> bool:
    """Whether the pair shares a group."""
    if len(view.groups_a) == 0:
        return False
    for k in range(view.groups_a.shape[1]):
        if view.groups_a[view.row0 + r, k] == view.groups_b[view.column0 + column, k]:
            return True
    return False
