"""The nearest neighbours of every row of a set, by all pairs of rows, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.array_types import Float32s, Int32s
from common.progress import Track, silent
from evaluation.kernels.neighbour_kernels import update_column_neighbours, update_row_neighbours
from evaluation.pairs.pairs import BLOCK_COLUMNS, BLOCK_ROWS
from evaluation.pairs.threads import count_cores, multiply_rows, run_in_threads


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest other rows of each row.

    Attributes:
        rows: int32 [n, k], nearest first, ties by row; -1 where there are fewer.
        similarities: float32 [n, k]; at -1 the floor.
    """

    rows: Int32s
    similarities: Float32s


def find_neighbours(
    vectors: Float32s, k: int, *, floor: float = -np.inf, track: Track = silent, name: str = "neighbours"
) -> Neighbours:
    """Exact neighbours by dot product, each pair computed once, in float32 and with bounded memory.

    Takes n² d / 2 multiplications and 8 n k bytes beside a block of 16 MiB.

    Args:
        vectors: float32 [n, d].
        floor: neighbours that do not exceed it are left out.
    """
    n = len(vectors)
    k = max(1, min(k, n - 1))
    similarities = np.full((n, k), floor, dtype=np.float32)
    rows = np.full((n, k), -1, dtype=np.int32)
    buffer = np.empty(BLOCK_ROWS * BLOCK_COLUMNS, dtype=np.float32)
    bands = range(0, n, BLOCK_ROWS)
    for top in track(bands, name, len(bands)):
        band = slice(top, min(top + BLOCK_ROWS, n))
        height = band.stop - band.start
        for left in range(top, n, BLOCK_COLUMNS):
            width = min(BLOCK_COLUMNS, n - left)
            block = buffer[: height * width].reshape(height, width)
            multiply_rows(vectors[band], vectors[left : left + width], block)
            run_in_threads(
                update_row_neighbours,
                [(block, *ends, top, left, similarities, rows) for ends in _split(0, height)],
            )
            beyond = max(band.stop - left, 0)  # columns of the band itself were compared both ways
            run_in_threads(
                update_column_neighbours,
                [(block, *ends, top, left, similarities, rows) for ends in _split(beyond, width)],
            )
    return Neighbours(rows, similarities)


def _split(first: int, stop: int) -> list[tuple[int, int]]:
    """The range in one part per core; none where it is empty."""
    edges = np.linspace(first, max(first, stop), count_cores() + 1).astype(int).tolist()
    return [ends for ends in pairwise(edges) if ends[1] > ends[0]]
