"""Compiled loops over a block for its queries: best impostors and the ranks of partners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.compiled import Floats, Integers, compiled


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
