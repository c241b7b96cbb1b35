"""Batches of queries and items: of each class drawn as many of one as of the other."""

from __future__ import annotations

import numpy as np

from common.array_types import Bools, Int64s, RowIndices
from training.batches.samplers import deal_rows, group_rows


def draw_role_batches(
    labels: Int64s, is_query: Bools, batch_size: int, per_class: int, steps: int, seed: int, epoch: int
) -> list[RowIndices]:
    """The rows of each batch of one epoch, from seed and epoch alone.

    Classes that have both come in random order, all before one comes again, and at most once in a batch. Each
    gives up to half of ``per_class`` queries and as many items, all of its own before one comes again.

    Args:
        labels: int [n], class codes from 0. is_query: bool [n].
    """
    random = np.random.default_rng([seed, epoch])
    both = np.intersect1d(labels[is_query], labels[~is_query])
    used = np.flatnonzero(np.isin(labels, both))
    groups = [
        used[rows] for rows in group_rows(2 * labels[used] + is_query[used])
    ]  # items, queries, items...
    rows_of = dict(enumerate(groups))
    waiting = {number: rows[:0] for number, rows in rows_of.items()}
    count = max(2, min(len(both), batch_size // per_class))
    classes: list[int] = []
    batches = []
    for _ in range(steps):
        if len(classes) < count:
            left = set(classes)
            classes += sorted(random.permutation(len(both)).tolist(), key=left.__contains__)
        drawn, classes = classes[:count], classes[count:]
        parts = []
        for number in (2 * place + role for place in drawn for role in (1, 0)):
            take = min(per_class // 2, len(rows_of[number]))
            part, waiting[number] = deal_rows(waiting[number], rows_of[number], take, random)
            parts.append(part)
        batches.append(np.concatenate(parts))
    return batches
