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
def _bin_of(score: np.float32, scale: np.float32, base: np.float32, last: np.float32) -> np.uint32:
    """Whole numbers below 2^24 are exact in float32, and stay in vector registers there; unsigned
    positions need no look at whether they count from the end."""
    return np.uint32(np.int32(min(max(np.floor(score * scale) - base, np.float32(0)), last)))


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
                bins[column] = _bin_of(line[column], scale, base, last)
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
                if wanted[_bin_of(s, scale, base, last)]:
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
                if mixed[_bin_of(s, scale, base, last)]:
                    if grouped and groups_a[i] == groups_b[column0 + column]:
                        continue
                    total += 2 * len(genuine) - np.searchsorted(genuine, s, side="left")
                    total -= np.searchsorted(genuine, s, side="right")
    return total


@compiled
def best_and_ranks_of_rows(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    share: Integers,
    similarities: Floats,
    rows_b: Integers,
    best: Floats,
    best_row: Integers,
    partner_starts: Integers,
    partner_similarities: Floats,
    partner_rows: NDArray[np.int32],
    ahead: NDArray[np.int32],
    bars: Floats,
) -> None:
    """For each row: its best impostor by score, and how many impostors come ahead of each partner."""
    m = scores.shape[1]
    grouped = len(groups_a) > 0
    for r in share:
        i = row0 + r
        stops = (spans[i, 1] - column0, m)
        for part in range(2):
            first = max(0, (spans[i, 0] if part == 0 else spans[i, 2]) - column0)
            for column in range(first, min(m, stops[part])):
                s = scores[r, column]
                if s >= best[i] or similarities[r, column] >= bars[i]:
                    j = column0 + column
                    if grouped and groups_a[i] == groups_b[j]:
                        continue
                    _meet(
                        i, s, similarities[r, column], rows_b[j], best, best_row,
                        partner_starts, partner_similarities, partner_rows, ahead,
                    )  # fmt: skip


@compiled
def best_and_ranks_of_columns(
    scores: Floats,
    row0: int,
    column0: int,
    spans: Integers,
    codes_a: Integers,
    codes_b: Integers,
    groups_a: Integers,
    groups_b: Integers,
    first_column: int,
    stop_column: int,
    similarities: Floats,
    rows_a: Integers,
    best: Floats,
    best_row: Integers,
    partner_starts: Integers,
    partner_similarities: Floats,
    partner_rows: NDArray[np.int32],
    ahead: NDArray[np.int32],
    bars: Floats,
) -> None:
    """The same for the columns of a block of a set against itself, where each pair is met once."""
    grouped = len(groups_a) > 0
    for r in range(scores.shape[0]):
        i = row0 + r
        for column in range(max(first_column, spans[i, 2] - column0), stop_column):
            j = column0 + column
            s = scores[r, column]
            if s >= best[j] or similarities[r, column] >= bars[j]:
                if grouped and groups_a[i] == groups_b[j]:
                    continue
                _meet(
                    j, s, similarities[r, column], rows_a[i], best, best_row,
                    partner_starts, partner_similarities, partner_rows, ahead,
                )  # fmt: skip


@compiled
def _meet(
    query: int,
    score: np.float32,
    similarity: np.float32,
    row: int,
    best: Floats,
    best_row: Integers,
    partner_starts: Integers,
    partner_similarities: Floats,
    partner_rows: NDArray[np.int32],
    ahead: NDArray[np.int32],
) -> None:
    if score > best[query] or (score == best[query] and row < best_row[query]):
        best[query] = score
        best_row[query] = row
    low, high = partner_starts[query], partner_starts[query + 1]
    end = high
    while low < high:  # partners by descending similarity, ties by row: how many come before this impostor
        middle = (low + high) // 2
        p = partner_similarities[middle]
        if p > similarity or (p == similarity and partner_rows[middle] < row):
            low = middle + 1
        else:
            high = middle
    if low < end:
        ahead[low] += 1


@compiled
def raise_bars(
    queries: Integers,
    partner_starts: Integers,
    partner_similarities: Floats,
    ahead: NDArray[np.int32],
    deepest: int,
    bars: Floats,
) -> None:
    """Lift each query's bar to its last partner that can still be within the ranks that count."""
    for query in queries:
        first, end = partner_starts[query], partner_starts[query + 1]
        depth = max(end - first, deepest)
        seen = 0
        bar = np.float32(np.inf)
        for p in range(first, end):
            seen += ahead[p]
            if p - first + 1 + seen > depth:
                break
            bar = partner_similarities[p]
        bars[query] = bar


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


@compiled
def reached(
    scores: Floats, ascending: Floats, scale: np.float32, base: np.float32, first: Integers
) -> Integers:
    """int64, per score: how many ascending thresholds it reaches.

    ``first[b]`` is the number of thresholds at or below the lower edge of bin b.
    """
    found = np.empty(len(scores), dtype=np.int64)
    last = np.float32(len(first) - 1)
    k = len(ascending)
    for p in range(len(scores)):
        s = scores[p]
        level = first[_bin_of(s, scale, base, last)]
        while level < k and ascending[level] <= s:
            level += 1
        found[p] = level
    return found


@compiled
def place_pairs(
    a: NDArray[Any],
    b: NDArray[Any],
    levels: Integers,
    codes_a: Integers,
    codes_b: Integers,
    cursor: Integers,
    placed_a: NDArray[Any],
    placed_b: NDArray[Any],
    counts: Integers,
) -> None:
    """Sort pairs by level into ``placed_*`` and count them for both of their classes.

    ``cursor[level]`` is where the next pair of a level goes; level 0 is dropped.
    """
    for p in range(len(levels)):
        level = levels[p]
        if level > 0:
            place = cursor[level]
            cursor[level] += 1
            placed_a[place] = a[p]
            placed_b[place] = b[p]
            counts[codes_a[a[p]], level] += 1
            counts[codes_b[b[p]], level] += 1


@compiled
def draw_halves(starts: Integers, seed: int, lanes: int, half: NDArray[np.uint8]) -> None:
    """Random halvings of the items of each class, one per lane: 1 in the first half, 0 in the second.

    Of an odd number of items the spare one goes to either half by the toss of a coin.
    """
    np.random.seed(seed)  # noqa: NPY002 (inside a compiled loop this is the compiler's own generator)
    for lane in range(lanes):
        for c in range(len(starts) - 1):
            first, n = starts[c], starts[c + 1] - starts[c]
            order = np.random.permutation(n)  # noqa: NPY002
            cut = n // 2
            if n % 2 == 1 and np.random.random() < 0.5:  # noqa: NPY002
                cut += 1
            for k in range(n):
                half[first + order[k], lane] = 1 if k < cut else 0


@compiled
def halved_variances(
    impostor_a: NDArray[Any],
    impostor_b: NDArray[Any],
    impostor_starts: Integers,
    genuine_a: NDArray[np.int32],
    genuine_b: NDArray[np.int32],
    genuine_starts: Integers,
    codes_a: Integers,
    codes_b: Integers,
    halves_a: NDArray[np.uint8],
    halves_b: NDArray[np.uint8],
    genuine_totals: Integers,
    impostor_totals: Integers,
    chosen: Integers,
    grid_of: Integers,
    c: float,
    variances: NDArray[np.float64],
    by_class: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """Cross-product variance of class utilities between two halves, for a batch of halvings.

    Pairs are sorted by level: those of level k + 1 are accepted from threshold k downwards.
    ``halves_*`` uint8 [n, 2 L]: lane l says whether an item is in the first half of halving l, lane
    L + l whether it is in the second; ``*_totals`` int64 [classes, 2 L]. ``chosen`` are the classes
    that count, ``grid_of[k]`` the grid that threshold k belongs to. Adds to ``variances``
    [grids, L], to ``by_class`` [grids, chosen] each class's product of deviations, and to
    ``weights`` [grids, chosen] in how many terms it took part.
    """
    lanes = halves_a.shape[1]
    L = lanes // 2
    n_classes = len(genuine_totals)
    impostors = np.zeros((n_classes, lanes), dtype=np.int32)
    genuine = np.zeros((n_classes, lanes), dtype=np.int32)
    u = np.empty((len(chosen), lanes))
    sums = np.empty(lanes)
    members = np.empty(L)
    valid = np.ones((len(chosen), L), dtype=np.bool_)
    for t in range(len(chosen)):
        for lane in range(L):
            for side in (lane, lane + L):
                if genuine_totals[chosen[t], side] == 0 or impostor_totals[chosen[t], side] == 0:
                    valid[t, lane] = False
    for k in range(len(grid_of) - 1, -1, -1):
        for p in range(impostor_starts[k + 1], impostor_starts[k + 2]):
            x, y = halves_a[impostor_a[p]], halves_b[impostor_b[p]]
            left, right = impostors[codes_a[impostor_a[p]]], impostors[codes_b[impostor_b[p]]]
            for lane in range(lanes):
                both = x[lane] & y[lane]
                left[lane] += both
                right[lane] += both
        for p in range(genuine_starts[k + 1], genuine_starts[k + 2]):
            x, y = halves_a[genuine_a[p]], halves_b[genuine_b[p]]
            own = genuine[codes_a[genuine_a[p]]]
            for lane in range(lanes):
                own[lane] += x[lane] & y[lane]
        sums[:] = 0.0
        members[:] = 0.0
        for t in range(len(chosen)):
            i = chosen[t]
            for lane in range(lanes):
                u[t, lane] = 0.0
                if not valid[t, lane % L]:
                    continue
                sensitivity = genuine[i, lane] / genuine_totals[i, lane]
                specificity = 1.0 - impostors[i, lane] / impostor_totals[i, lane]
                below = c * c * specificity + sensitivity
                if below > 0.0:
                    u[t, lane] = (1.0 + c * c) * specificity * sensitivity / below
                sums[lane] += u[t, lane]
                if lane < L:
                    members[lane] += 1.0
        g = grid_of[k]
        for t in range(len(chosen)):
            for lane in range(L):
                if valid[t, lane]:
                    product = (u[t, lane] - sums[lane] / members[lane]) * (
                        u[t, lane + L] - sums[lane + L] / members[lane]
                    )
                    variances[g, lane] += product / members[lane]
                    by_class[g, t] += product
                    weights[g, t] += 1.0
