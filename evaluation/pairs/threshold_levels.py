"""Pairs accepted per class at given thresholds, and pairs sorted by the thresholds they reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.array_types import Float32s, Int64s
from decision.scorers import count_reached
from evaluation.kernels.impostor_kernels import count_at_levels
from evaluation.kernels.level_kernels import LevelSteps, count_levels, sort_pairs_by_level
from evaluation.pairs.pairs import BLOCK_ROWS, Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import run_in_threads, split_rows
from evaluation.pairs.top_impostors import Chunk, allocate

SHARDS = 2  # of the kept pairs, sorted side by side; the memory of a table of class counts each


@dataclass(frozen=True, eq=False)
class SortedPairs:
    """Pairs that reach one or more of the ascending thresholds, by how many they reach.

    Attributes:
        a, b: positions; those that reach exactly m thresholds are at starts[m]:starts[m + 1].
        starts: int64 [k + 2].
        accepted: int64 [classes, k]: pairs accepted at each threshold, by both of their classes.
    """

    a: NDArray[Any]
    b: NDArray[Any]
    starts: Int64s
    accepted: Int64s


@dataclass(frozen=True, eq=False)
class ThresholdLevels:
    """Impostor and genuine pairs by level; ``accepted`` counts a genuine pair once."""

    impostor: SortedPairs
    genuine: SortedPairs


def sort_by_level(sweep: Sweep, ascending: Float32s) -> ThresholdLevels:
    """Sort the pairs by level; the sweep's own list of impostor pairs is used up, chunk by chunk.

    ``ascending`` float32 [k]: the thresholds, whose lowest no pair reaches that the sweep has not kept.
    """
    bins = sweep.bins
    edges = bins.compute_edges(np.arange(bins.count))
    first = count_reached(edges, ascending)
    first[0] = 0  # the first bin also holds what lies below its edge
    steps = LevelSteps(ascending, bins.scale, bins.lowest, first)
    impostor = _sort_pairs(sweep, steps, [(chunks, _drain(chunks)) for chunks in sweep.top.take(SHARDS)])
    genuine = _sort_pairs(sweep, steps, [(_iterate_genuine(sweep.pairs), _iterate_genuine(sweep.pairs))])
    return ThresholdLevels(impostor, replace(genuine, accepted=genuine.accepted // 2))


def _drain(chunks: list[Chunk]) -> Iterator[Chunk]:
    while chunks:
        yield chunks.pop()


def _iterate_genuine(pairs: Pairs) -> Iterator[Chunk]:
    return ((part.a, part.b, part.scores) for part in pairs.iterate_genuine())


def _sort_pairs(
    sweep: Sweep, steps: LevelSteps, shards: Sequence[tuple[Iterable[Chunk], Iterable[Chunk]]]
) -> SortedPairs:
    """Sort the chunks of all shards side by side; each shard is given twice, to be counted and written."""
    k, pairs = len(steps.ascending), sweep.pairs
    sizes = np.zeros((len(shards), k + 1), dtype=np.int64)
    run_in_threads(_count, [(chunks, steps, size) for (chunks, _), size in zip(shards, sizes, strict=True)])
    sizes[:, 0] = 0
    starts = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))]).astype(np.int64)
    cursors = starts[:-1] + np.cumsum(sizes, axis=0) - sizes  # within a level, shard after shard
    positions = [allocate(int(starts[-1]), sweep.top.dtype) for _ in range(2)]
    counts = np.zeros((len(shards), len(pairs.classes), k + 1), dtype=np.int64)
    run_in_threads(
        _write,
        [
            (chunks, steps, pairs.a.codes, pairs.b.codes, cursor, *positions, count)
            for (_, chunks), cursor, count in zip(shards, cursors, counts, strict=True)
        ],
    )
    return SortedPairs(positions[0], positions[1], starts, cumulate_levels(counts.sum(axis=0)))


def _count(chunks: Iterable[Chunk], steps: LevelSteps, sizes: Int64s) -> None:
    for _, _, scores in chunks:
        count_levels(scores, steps, sizes)


def _write(chunks: Iterable[Chunk], steps: LevelSteps, *outputs: NDArray[Any]) -> None:
    for chunk in chunks:
        sort_pairs_by_level(*chunk, steps, *outputs)


def count_accepted_per_class(pairs: Pairs, thresholds: ArrayLike) -> tuple[Int64s, Int64s]:
    """Genuine and impostor pairs, int64 [classes, k], that reach thresholds, float32 [k] in any order.

    An impostor pair counts for both of its classes.
    """
    ascending, order = _sort(thresholds)
    counts = np.zeros((len(split_rows(BLOCK_ROWS)), len(pairs.classes), len(order) + 1), dtype=np.int64)
    for block in pairs.iterate_blocks():
        view = pairs.build_view(block)
        run_in_threads(
            count_at_levels,
            [
                (view, rows, ascending, counts[number])
                for number, rows in enumerate(split_rows(len(block.scores)))
            ],
        )
    impostor = _restore_order(cumulate_levels(counts.sum(axis=0)), order)
    return count_accepted_genuine(pairs, thresholds), impostor


def count_accepted_genuine(pairs: Pairs, thresholds: ArrayLike) -> Int64s:
    """int64 [classes, k]: accepted genuine pairs at thresholds float32 [k] in any order."""
    ascending, order = _sort(thresholds)
    width = len(order) + 1
    counts = np.zeros(len(pairs.classes) * width, dtype=np.int64)
    for part in pairs.iterate_genuine():
        level = count_reached(part.scores, ascending)
        counts += np.bincount(part.codes * width + level, minlength=len(counts))
    return _restore_order(cumulate_levels(counts.reshape(-1, width)), order)


def cumulate_levels(counts: Int64s) -> Int64s:
    """Accepted pairs, int64 [classes, k], from those that reach exactly m thresholds, [classes, k + 1]."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, -2::-1]


def _sort(thresholds: ArrayLike) -> tuple[Float32s, Int64s]:
    given = np.asarray(thresholds, dtype=np.float32)
    order = np.argsort(given, kind="stable")
    return given[order], order


def _restore_order(accepted: Int64s, order: Int64s) -> Int64s:
    restored = np.empty_like(accepted)
    restored[:, order] = accepted
    return restored
