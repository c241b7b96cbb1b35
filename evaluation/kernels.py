"""Compiled loops over the impostor pairs of a block: counts, histograms, top pairs, sums."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from evaluation.compiled import Floats, Integers, bin_of, compiled


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


@compiled
def scan_rows(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
    scale: np.float32,
    base: np.float32,
    histogram: NDArray[np.uint32],
    bar: np.float32,
    top_a: NDArray[Any],
    top_b: NDArray[Any],
    top_scores: Floats,
) -> int:
    """Histogram of a block's impostor scores, and the pairs that reach ``bar`` with their positions.

    The outputs ``top_*`` must have room for every pair of the share; returns how many are filled.
    """
    m = scores.shape[1]
    last = np.float32(len(histogram) - 1)
    grouped = len(groups_a) > 0
    bins = np.empty(m, dtype=np.uint32)
    filled = np.uint64(0)
    for r in share:
        i = row0 + r
        line = scores[r]
        stops = (spans[i, 1] - column0, m)
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            stop = min(m, stops[part])
            for column in range(first, stop):
                bins[column] = bin_of(line[column], scale, base, last)
            if grouped:
                for column in range(first, stop):
                    j = column0 + column
                    if groups_a[i] != groups_b[j]:
                        histogram[bins[column]] += np.uint32(1)
                        if line[column] >= bar:
                            top_a[filled] = i
                            top_b[filled] = j
                            top_scores[filled] = line[column]
                            filled += np.uint64(1)
            else:
                for column in range(first, stop):
                    histogram[bins[column]] += np.uint32(1)
                for column in range(first, stop):  # without a branch: one pair in ten is kept, unpredictably
                    top_a[filled] = i
                    top_b[filled] = column0 + column
                    top_scores[filled] = line[column]
                    filled += np.uint64(line[column] >= bar)
    return int(filled)


@compiled
def collect_bins(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
    scale: np.float32,
    base: np.float32,
    wanted: NDArray[np.bool_],
    found: Floats,
) -> int:
    """The impostor scores of a block that lie in wanted bins; returns how many of ``found`` are filled."""
    m = scores.shape[1]
    last = np.float32(len(wanted) - 1)
    grouped = len(groups_a) > 0
    filled = 0
    for r in share:
        i = row0 + r
        stops = (spans[i, 1] - column0, m)
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            for column in range(first, min(m, stops[part])):
                s = scores[r, column]
                if wanted[bin_of(s, scale, base, last)]:
                    if grouped and groups_a[i] == groups_b[column0 + column]:
                        continue
                    found[filled] = s
                    filled += 1
    return filled


@compiled
def beaten_genuine(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
    scale: np.float32,
    base: np.float32,
    mixed: NDArray[np.bool_],
    genuine: Floats,
) -> int:
    """Sum over impostor pairs in mixed bins of 2 x genuine scores above + genuine scores equal.

    ``genuine`` float32, ascending.
    """
    m = scores.shape[1]
    last = np.float32(len(mixed) - 1)
    grouped = len(groups_a) > 0
    total = 0
    for r in share:
        i = row0 + r
        stops = (spans[i, 1] - column0, m)
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            for column in range(first, min(m, stops[part])):
                s = scores[r, column]
                if mixed[bin_of(s, scale, base, last)]:
                    if grouped and groups_a[i] == groups_b[column0 + column]:
                        continue
                    total += 2 * len(genuine) - np.searchsorted(genuine, s, side="left")
                    total -= np.searchsorted(genuine, s, side="right")
    return total


@compiled
def sum_of_kernels(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
) -> float:
    """Sum over a block's impostor pairs of exp(4 s - 4), that is exp(-2 |x - y|^2).

    exp(4 s) = exp(s / 2)^8; the series of degree 12 is exact to 1e-13 for |s| <= 1 and, unlike
    exp itself, runs in vector registers.
    """
    m = scores.shape[1]
    grouped = len(groups_a) > 0
    total = 0.0
    for r in share:
        i = row0 + r
        stops = (spans[i, 1] - column0, m)
        line = scores[r]
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            stop = min(m, stops[part])
            if grouped:
                for column in range(first, stop):
                    if groups_a[i] != groups_b[column0 + column]:
                        total += np.exp(4.0 * line[column] - 4.0)
            else:
                total += _sum_of_exponentials(line[first : max(first, stop)])
    return total


@numba.njit(nogil=True, cache=True, fastmath=True)
def _sum_of_exponentials(similarities: Floats) -> float:
    total = 0.0
    for k in range(len(similarities)):
        x = 0.5 * np.float64(similarities[k])
        p = 1.0 + x / 12.0
        p = 1.0 + x * p / 11.0
        p = 1.0 + x * p / 10.0
        p = 1.0 + x * p / 9.0
        p = 1.0 + x * p / 8.0
        p = 1.0 + x * p / 7.0
        p = 1.0 + x * p / 6.0
        p = 1.0 + x * p / 5.0
        p = 1.0 + x * p / 4.0
        p = 1.0 + x * p / 3.0
        p = 1.0 + x * p / 2.0
        p = 1.0 + x * p
        p = p * p
        p = p * p
        total += p * p
    return float(total * np.exp(-4.0))
