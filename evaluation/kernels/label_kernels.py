"""Compiled loop over the neighbours of items: the nearest label other than an item's own."""

from __future__ import annotations

import numpy as np

from common.array_types import Float32s, Float64s, Int32s, Int64s
from evaluation.kernels.compiled import compiled


@compiled
def find_other_labels(
    neighbours: Int32s,
    similarities: Float32s,
    codes: Int64s,
    sizes: Int64s,
    most: int,
    other: Int64s,
    mean: Float64s,
    nearest: Int64s,
) -> None:
    """The other label with the highest mean similarity of its nearest items, for each row.

    The mean is over ``most`` items, or as many as the label has; those that are not among the neighbours
    count with the similarity of the last neighbour, which they do not exceed. Writes the label's code, -1
    where all neighbours share the row's own, its mean, and its nearest item.

    ``neighbours`` int32 and ``similarities`` float32 [n, k], nearest first, -1 where there are fewer.
    """
    for i in range(len(neighbours)):
        last = np.float32(-1)
        for slot in range(neighbours.shape[1]):
            if neighbours[i, slot] >= 0:
                last = similarities[i, slot]
        for slot in range(neighbours.shape[1]):
            j = neighbours[i, slot]
            if j < 0 or codes[j] == codes[i]:
                continue
            is_first = True
            for before in range(slot):
                if codes[neighbours[i, before]] == codes[j]:
                    is_first = False
                    break
            if not is_first:
                continue
            wanted = min(most, sizes[codes[j]])
            total, met = 0.0, 0
            for after in range(slot, neighbours.shape[1]):
                if met == wanted:
                    break
                if neighbours[i, after] >= 0 and codes[neighbours[i, after]] == codes[j]:
                    total += similarities[i, after]
                    met += 1
            average = (total + (wanted - met) * last) / wanted
            if other[i] < 0 or average > mean[i]:
                other[i], mean[i] = codes[j], average
                nearest[i] = j
