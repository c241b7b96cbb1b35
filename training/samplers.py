"""Which items make a batch: it follows from seed and epoch alone, so a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from api_schemas.config import SamplerConfig

Rows = NDArray[np.int64]


def batches(labels: Rows, sampler: SamplerConfig, steps: int, seed: int, epoch: int) -> list[Rows]:
    """The row numbers of each batch of one epoch.

    ``m_per_class``: classes in random order, each giving up to ``items_per_class`` of its items (all of a
    smaller class), until the batch is full; a class comes again only after all others came.
    ``class_balanced``: every item's class is drawn evenly. ``shuffled``: a permutation of all items.

    Args:
        labels: int [n], class codes from 0.
        steps: batches in the epoch.
    """
    random = np.random.default_rng([seed, epoch])
    rows_of = _rows_of_classes(labels)
    size = min(sampler.batch_size, len(labels))
    if sampler.name == "m_per_class":
        stream = _class_groups(rows_of, min(sampler.items_per_class, size // 2), random)
        return [_filled(stream, size) for _ in range(steps)]
    if sampler.name == "class_balanced":
        drawn = random.integers(0, len(rows_of), (steps, size))
        return [np.array([random.choice(rows_of[code]) for code in batch]) for batch in drawn]
    n = len(labels)
    turns = -(-steps * size // n)
    order = np.concatenate([random.permutation(n) for _ in range(turns)])
    return list(order[: steps * size].reshape(steps, size))


def _rows_of_classes(labels: Rows) -> list[Rows]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _class_groups(rows_of: list[Rows], items: int, random: np.random.Generator) -> Iterator[Rows]:
    """Groups of one class each; within a class all items come before one comes again."""
    waiting: list[Rows] = [rows[:0] for rows in rows_of]
    while True:
        for code in random.permutation(len(rows_of)):
            take = min(items, len(rows_of[code]))
            if len(waiting[code]) < take:
                # what is left comes first; the rest of the new order must not repeat it
                rest = np.setdiff1d(rows_of[code], waiting[code])
                waiting[code] = np.concatenate([waiting[code], random.permutation(rest)])
            yield waiting[code][:take]
            waiting[code] = waiting[code][take:]


def _filled(stream: Iterator[Rows], size: int) -> Rows:
    groups: list[Rows] = []
    room = size
    while room:
        group = next(stream)[:room]
        groups.append(group)
        room -= len(group)
    return np.concatenate(groups)
