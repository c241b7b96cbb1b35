"""Compiled loops over a block for its queries: best impostors and the ranks of partners."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.array_types import Float32s, Int32s, Int64s
from evaluation.kernels.compiled import compiled
from evaluation.kernels.impostor_kernels import BlockView, find_run, is_excluded


class RankState(NamedTuple):
    """Running best scores and ranks of queries.

    Attributes:
        best, best_position: as in ``evaluation.pairs.ranks.Ranks``.
        partner_starts: int64 [n + 1]: the partners of query q are at starts[q]:starts[q + 1].
        partner_similarities: float32, descending within a query, ties by position.
        partner_positions: int32: the partners' positions in ``b``.
        ahead: int32, per partner: impostors that come after the partner before it and before itself;
            exact wherever the rank can still matter.
        floors: float32 [n]: similarity below which an impostor changes no rank that matters.
    """

    best: Float32s
    best_position: Int64s
    partner_starts: Int64s
    partner_similarities: Float32s
    partner_positions: Int32s
    ahead: Int32s
    floors: Float32s


@compiled
def update_rows(view: BlockView, rows: Int64s, similarities: Float32s, state: RankState) -> None:
    """For each row: its best impostor by score, and how many impostors come ahead of each partner."""
    for r in rows:
        i = view.row0 + r
        for part in range(2):
            first, stop = find_run(view, r, part)
            for column in range(first, stop):
                s, similarity = view.scores[r, column], similarities[r, column]
                reaches = s >= state.best[i] or similarity >= state.floors[i]
                if reaches and not is_excluded(view, r, column):
                    _update_query(i, s, similarity, view.column0 + column, state)


@compiled
def update_columns(
    view: BlockView,
    first_column: int,
    stop_column: int,
    similarities: Float32s,
    state: RankState,
) -> None:
    """The same for the columns of a block of a set against itself, where each pair is met once."""
    for r in range(view.scores.shape[0]):
        i = view.row0 + r
        for column in range(max(first_column, find_run(view, r, 1)[0]), stop_column):
            j = view.column0 + column
            s, similarity = view.scores[r, column], similarities[r, column]
            reaches = s >= state.best[j] or similarity >= state.floors[j]
            if reaches and not is_excluded(view, r, column):
                _update_query(j, s, similarity, i, state)


@compiled
def _update_query(
    query: int, score: np.float32, similarity: np.float32, position: int, state: RankState
) -> None:
    best = state.best[query]
    if score > best or (score == best and position < state.best_position[query]):
        state.best[query] = score
        state.best_position[query] = position
    low, high = state.partner_starts[query], state.partner_starts[query + 1]
    end = high
    while (
        low < high
    ):  # partners by descending similarity, ties by position: how many come before this impostor
        middle = (low + high) // 2
        p = state.partner_similarities[middle]
        if p > similarity or (p == similarity and state.partner_positions[middle] < position):
            low = middle + 1
        else:
            high = middle
    if low < end:
        state.ahead[low] += 1


@compiled
def raise_floors(queries: Int64s, deepest: int, state: RankState) -> None:
    """Lift each query's floor to its last partner that can still be within the ranks that count."""
    for query in queries:
        first, end = state.partner_starts[query], state.partner_starts[query + 1]
        depth = max(end - first, deepest)
        seen = 0
        floor = np.float32(np.inf)
        for p in range(first, end):
            seen += state.ahead[p]
            if p - first + 1 + seen > depth:
                break
            floor = state.partner_similarities[p]
        state.floors[query] = floor
