"""Samplers: the rows of each batch, from seed and epoch alone, so that a run can resume anywhere."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from api_schemas.config import SamplerConfig
from common.array_types import Int64s, RowIndices
from common.errors import ConfigError


def draw_batches(
    labels: Int64s,
    sampler: SamplerConfig,
    steps: int,
    seed: int,
    epoch: int,
    nearest: RowIndices | None = None,
) -> list[RowIndices]:
    """The rows of each batch of one epoch.

    ``m_per_class``: classes in random order, each giving up to ``items_per_class`` of its items (all of a
    smaller class), until the batch is full; a class comes again only after all others came. With ``nearest``,
    each brings its nearest classes with it.
    ``episodic``: classes drawn again every time, exactly ``items_per_class`` distinct items of each in random
    order; smaller classes are never drawn. ``class_balanced``: every item's class is drawn uniformly.
    ``shuffled``: a permutation of all items. ``two_views``: the same, each item twice in its batch.

    Args:
        labels: int [n], class codes from 0.
        steps: batches in the epoch.
        nearest: int [classes, m], for ``m_per_class``: the classes that come with each.

    Raises:
        ConfigError: too few classes of ``items_per_class`` items for an episode.
    """
    random = np.random.default_rng([seed, epoch])
    rows_of = group_rows(labels)
    size = min(sampler.batch_size, len(labels))
    if sampler.name == "m_per_class":
        items = min(sampler.items_per_class, size // 2)
        return _draw_m_per_class(rows_of, size, items, steps, random, nearest)
    if sampler.name == "episodic":
        return _draw_episodes(rows_of, sampler, steps, random)
    if sampler.name == "class_balanced":
        drawn = random.integers(0, len(rows_of), (steps, size))
        return [np.array([random.choice(rows_of[code]) for code in batch]) for batch in drawn]
    n, views = len(labels), 2 if sampler.ignores_labels else 1
    size = min(sampler.batch_size // views, n)
    passes = math.ceil(steps * size / n)
    order = np.concatenate([random.permutation(n) for _ in range(passes)])
    return list(np.repeat(order[: steps * size].reshape(steps, size), views, axis=1))


def group_rows(labels: Int64s) -> list[RowIndices]:
    """The rows of each code, in the order of the codes."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _draw_m_per_class(
    rows_of: list[RowIndices],
    size: int,
    items: int,
    steps: int,
    random: np.random.Generator,
    nearest: RowIndices | None,
) -> list[RowIndices]:
    classes: deque[int] = deque()
    waiting = [rows[:0] for rows in rows_of]
    batches: list[RowIndices] = []
    for _ in range(steps):
        groups: list[RowIndices] = []
        used: set[int] = set()
        postponed: list[int] = []
        room = size
        while room:
            if not classes:
                classes.extend(random.permutation(len(rows_of)).tolist())
            code = classes.popleft()
            if code in used and len(used) < len(rows_of):
                postponed.append(code)  # the next batch begins with it
                continue
            neighbours = [] if nearest is None else nearest[code].tolist()
            for member in (code, *(neighbour for neighbour in neighbours if neighbour not in used)):
                if not room:
                    break
                used.add(member)
                group, waiting[member] = deal_rows(waiting[member], rows_of[member], min(items, room), random)
                groups.append(group)
                room -= len(group)
        classes.extendleft(reversed(postponed))
        batches.append(np.concatenate(groups))
    return batches


def _draw_episodes(
    rows_of: list[RowIndices], sampler: SamplerConfig, steps: int, random: np.random.Generator
) -> list[RowIndices]:
    items, ways = sampler.items_per_class, sampler.batch_size // sampler.items_per_class
    large = [rows for rows in rows_of if len(rows) >= items]
    if len(large) < ways:
        raise ConfigError(
            f"sampler: an episode of {sampler.batch_size} items needs {ways} classes of at least {items} "
            f"items, found {len(large)}: lower sampler.batch_size or sampler.items_per_class."
        )
    return [
        np.concatenate(
            [random.permutation(large[way])[:items] for way in random.permutation(len(large))[:ways]]
        )
        for _ in range(steps)
    ]


def deal_rows(
    waiting: RowIndices, rows: RowIndices, items: int, random: np.random.Generator
) -> tuple[RowIndices, RowIndices]:
    """Distinct items of one class from its shuffled pile, all before one comes again; and the rest of it."""
    take = min(items, len(rows))
    if len(waiting) < take:
        rest = np.setdiff1d(rows, waiting)
        waiting = np.concatenate([waiting, random.permutation(rest)])
    return waiting[:take], waiting[take:]
