"""Compiled loops over the impostor pairs of a block: counts, histograms, top pairs, sums."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, Int64s
from evaluation.kernels.block_view import Place, left_out, levels_reached, run_of
from evaluation.kernels.numba_support import bin_of, compiled


@compiled
def count_pairs_at(place: Place, share: Int64s, ascending: Float32s, counts: Int64s) -> None:
    """Add each impostor pair of a block to both of its classes, at the number of thresholds it reaches.

    ``counts`` int64 [classes, k + 1]; column m is for pairs that reach exactly m of the k thresholds.
    """
    lowest = ascending[0] if len(ascending) else np.float32(np.inf)
    for r in share:
        code = place.codes_a[place.row0 + r]
        for part in range(2):
            first, stop = run_of(place, r, part)
            for column in range(first, stop):
                s = place.scores[r, column]
                if s >= lowest and not left_out(place, r, column):
                    level = levels_reached(s, ascending)
                    counts[code, level] += 1
                    counts[place.codes_b[place.column0 + column], level] += 1


@compiled
def scan_rows(
    place: Place,
    share: Int64s,
    scale: np.float32,
    base: np.float32,
    histogram: NDArray[np.uint32],
    bar: np.float32,
    top_a: NDArray[Any],
    top_b: NDArray[Any],
    top_scores: Float32s,
) -> int:
    """Histogram of a block's impostor scores, and the pairs that reach ``bar`` with their positions.

    The outputs ``top_*`` must have room for every pair of the share; returns how many are filled.
    """
    last = np.float32(len(histogram) - 1)
    bins = np.empty(place.scores.shape[1], dtype=np.uint32)
    filled = np.uint64(0)
    for r in share:
        i = place.row0 + r
        for part in range(2):
            first, stop = run_of(place, r, part)
            line = place.scores[r, first:stop]  # counted from 0: an index that may be negative is slow
            column0 = place.column0 + first
            for k in range(len(line)):
                bins[k] = bin_of(line[k], scale, base, last)
            if len(place.groups_a):
                for k in range(len(line)):
                    if not left_out(place, r, first + k):
                        histogram[bins[k]] += np.uint32(1)
                        if line[k] >= bar:
                            top_a[filled] = i
                            top_b[filled] = column0 + k
                            top_scores[filled] = line[k]
                            filled += np.uint64(1)
            else:
                for k in range(len(line)):
                    histogram[bins[k]] += np.uint32(1)
                for k in range(len(line)):  # without a branch: one pair in ten is kept, unpredictably
                    top_a[filled] = i
                    top_b[filled] = column0 + k
                    top_scores[filled] = line[k]
                    filled += np.uint64(line[k] >= bar)
    return int(filled)


@compiled
def collect_bins(
    place: Place,
    share: Int64s,
    scale: np.float32,
    base: np.float32,
    wanted: Bools,
    found: Float32s,
) -> int:
    """The impostor scores of a block that lie in wanted bins; returns how many of ``found`` are filled."""
    last = np.float32(len(wanted) - 1)
    filled = 0
    for r in share:
        for part in range(2):
            first, stop = run_of(place, r, part)
            for column in range(first, stop):
                s = place.scores[r, column]
                if wanted[bin_of(s, scale, base, last)] and not left_out(place, r, column):
                    found[filled] = s
                    filled += 1
    return filled


@compiled
def beaten_genuine(
    place: Place,
    share: Int64s,
    scale: np.float32,
    base: np.float32,
    mixed: Bools,
    genuine: Float32s,
) -> int:
    """Sum over impostor pairs in mixed bins of 2 x genuine scores above + genuine scores equal.

    ``genuine`` float32, ascending.
    """
    last = np.float32(len(mixed) - 1)
    total = 0
    for r in share:
        for part in range(2):
            first, stop = run_of(place, r, part)
            for column in range(first, stop):
                s = place.scores[r, column]
                if mixed[bin_of(s, scale, base, last)] and not left_out(place, r, column):
                    total += 2 * len(genuine) - np.searchsorted(genuine, s, side="left")
                    total -= np.searchsorted(genuine, s, side="right")
    return total


@compiled
def sum_of_kernels(place: Place, share: Int64s) -> float:
    """Sum over a block's impostor pairs of exp(4 s - 4), that is exp(-2 |x - y|^2).

    exp(4 s) = exp(s / 2)^8; the series of degree 12 is exact to 1e-13 for |s| <= 1 and, unlike
    exp itself, runs in vector registers.
    """
    total = 0.0
    for r in share:
        for part in range(2):
            first, stop = run_of(place, r, part)
            if len(place.groups_a):
                for column in range(first, stop):
                    if not left_out(place, r, column):
                        total += np.exp(4.0 * place.scores[r, column] - 4.0)
            else:
                total += _sum_of_exponentials(place.scores[r, first:stop])
    return total


@numba.njit(nogil=True, cache=True, fastmath=True)
def _sum_of_exponentials(similarities: Float32s) -> float:
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
