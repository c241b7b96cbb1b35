"""Compiled loops that keep the nearest columns of every row of a block of similarities."""

from __future__ import annotations

from common.array_types import Float32s, Int32s
from evaluation.kernels.compiled import compiled


@compiled
def update_row_neighbours(
    scores: Float32s,
    first: int,
    stop: int,
    row0: int,
    column0: int,
    kept: Float32s,
    columns: Int32s,
) -> None:
    """Keep the best columns of the block's rows ``first`` to ``stop``; an item is not its own neighbour.

    ``kept`` float32 [n, k] descending and ``columns`` int32 [n, k]; a score must exceed the last one kept, so
    that ties go to the lower column where columns come in ascending order.
    """
    last = kept.shape[1] - 1
    for r in range(first, stop):
        i = row0 + r
        line = scores[r]
        floor = kept[i, last]
        for c in range(len(line)):
            if line[c] > floor and column0 + c != i:
                _insert(kept[i], columns[i], line[c], column0 + c)
                floor = kept[i, last]


@compiled
def update_column_neighbours(
    scores: Float32s,
    first: int,
    stop: int,
    row0: int,
    column0: int,
    kept: Float32s,
    columns: Int32s,
) -> None:
    """The same for the block's columns ``first`` to ``stop``, whose neighbours are its rows."""
    last = kept.shape[1] - 1
    floors = kept[column0 + first : column0 + stop, last].copy()
    for r in range(scores.shape[0]):
        line = scores[r, first:stop]
        for c in range(len(line)):
            if line[c] > floors[c]:
                j = column0 + first + c
                _insert(kept[j], columns[j], line[c], row0 + r)
                floors[c] = kept[j, last]


@compiled
def _insert(kept: Float32s, columns: Int32s, score: float, column: int) -> None:
    """Put a score into a descending list, behind those that are equal; the last one drops out."""
    position = len(kept) - 1
    while position > 0 and kept[position - 1] < score:
        kept[position] = kept[position - 1]
        columns[position] = columns[position - 1]
        position -= 1
    kept[position] = score
    columns[position] = column
