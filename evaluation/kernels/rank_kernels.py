"""Compiled loops over a block for its queries: best impostors and the ranks of partners."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.array_types import Float32s, Int32s, Int64s
from evaluation.kernels.block_view import Place, left_out, run_of
from evaluation.kernels.numba_support import compiled


class State(NamedTuple):
    """What the queries have met so far; the attributes are those of ``evaluation.pairs.ranks.Queries``."""

    best: Float32s
    best_row: Int64s
    partner_starts: Int64s
    partner_similarities: Float32s
    partner_rows: Int32s
    ahead: Int32s
    bars: Float32s


@compiled
def best_and_ranks_of_rows(
    place: Place, share: Int64s, similarities: Float32s, rows_b: Int64s, state: State
) -> None:
    """For each row: its best impostor by score, and how many impostors come ahead of each partner."""
    for r in share:
        i = place.row0 + r
        for part in range(2):
            first, stop = run_of(place, r, part)
            for column in range(first, stop):
                s, similarity = place.scores[r, column], similarities[r, column]
                if (s >= state.best[i] or similarity >= state.bars[i]) and not left_out(place, r, column):
                    _meet(i, s, similarity, rows_b[place.column0 + column], state)


@compiled
def best_and_ranks_of_columns(
    place: Place, first_column: int, stop_column: int, similarities: Float32s, rows_a: Int64s, state: State
) -> None:
    """The same for the columns of a block of a set against itself, where each pair is met once."""
    for r in range(place.scores.shape[0]):
        row = rows_a[place.row0 + r]
        for column in range(max(first_column, run_of(place, r, 1)[0]), stop_column):
            j = place.column0 + column
            s, similarity = place.scores[r, column], similarities[r, column]
            if (s >= state.best[j] or similarity >= state.bars[j]) and not left_out(place, r, column):
                _meet(j, s, similarity, row, state)


@compiled
def _meet(query: int, score: np.float32, similarity: np.float32, row: int, state: State) -> None:
    best = state.best[query]
    if score > best or (score == best and row < state.best_row[query]):
        state.best[query] = score
        state.best_row[query] = row
    low, high = state.partner_starts[query], state.partner_starts[query + 1]
    end = high
    while low < high:  # partners by descending similarity, ties by row: how many come before this impostor
        middle = (low + high) // 2
        p = state.partner_similarities[middle]
        if p > similarity or (p == similarity and state.partner_rows[middle] < row):
            low = middle + 1
        else:
            high = middle
    if low < end:
        state.ahead[low] += 1


@compiled
def raise_bars(queries: Int64s, deepest: int, state: State) -> None:
    """Lift each query's bar to its last partner that can still be within the ranks that count."""
    for query in queries:
        first, end = state.partner_starts[query], state.partner_starts[query + 1]
        depth = max(end - first, deepest)
        seen = 0
        bar = np.float32(np.inf)
        for p in range(first, end):
            seen += state.ahead[p]
            if p - first + 1 + seen > depth:
                break
            bar = state.partner_similarities[p]
        state.bars[query] = bar
