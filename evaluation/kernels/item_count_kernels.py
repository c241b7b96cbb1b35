"""Compiled loops that count, for each item of a block, its pairs by the number of thresholds they reach."""

from __future__ import annotations

import numpy as np

from common.array_types import Float32s, Int32s, Int64s
from evaluation.kernels.compiled import compiled

IMPOSTOR, GENUINE = 0, 1


@compiled
def count_for_rows(
    scores: Float32s,
    first: int,
    stop: int,
    diagonal: int,
    codes_a: Int64s,
    codes_b: Int64s,
    ascending: Float32s,
    sign: int,
    counts: Int32s,
) -> None:
    """Add the pairs of the block's rows ``first`` to ``stop`` to the counts of these rows.

    ``counts`` int32 [rows, 2, k + 1]: impostor and genuine pairs by how many of the k thresholds they reach,
    where that is not none. Column ``r + diagonal`` is row r itself, which is no pair.
    """
    lowest = ascending[0]
    for r in range(first, stop):
        for c in range(scores.shape[1]):
            s = scores[r, c]
            if s >= lowest and c != r + diagonal:
                kind = GENUINE if codes_a[r] == codes_b[c] else IMPOSTOR
                counts[r, kind, np.searchsorted(ascending, s, side="right")] += sign


@compiled
def count_for_columns(
    scores: Float32s,
    first: int,
    stop: int,
    codes_a: Int64s,
    codes_b: Int64s,
    ascending: Float32s,
    sign: int,
    counts: Int32s,
) -> None:
    """The same for the block's columns ``first`` to ``stop``; ``counts`` int32 [columns, 2, k + 1]."""
    lowest = ascending[0]
    for r in range(scores.shape[0]):
        for c in range(first, stop):
            s = scores[r, c]
            if s >= lowest:
                kind = GENUINE if codes_a[r] == codes_b[c] else IMPOSTOR
                counts[c, kind, np.searchsorted(ascending, s, side="right")] += sign
