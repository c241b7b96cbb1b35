"""Pairs sorted by the thresholds they reach, and what each class accepts at each threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from evaluation.kernels.level_kernels import LevelSteps, count_levels, sort_pairs_by_level
from evaluation.pairs.accepted_counts import cumulate_levels
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import run_in_threads
from evaluation.pairs.top_impostors import Chunk, allocate

SHARDS = 2  # of the kept pairs, sorted side by side; the memory of a table of class counts each


@dataclass(frozen=True, eq=False)
class SortedPairs:
    """Pairs that reach one or more of the ascending thresholds, by how many they reach.

    Attributes:
        a, b: positions; those that reach exactly m thresholds stand at starts[m]:starts[m + 1].
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

    Args:
        sweep: whose kept pairs are all that reach the lowest threshold.
        ascending: float32 [k], the thresholds.
    """
    bins = sweep.bins
    edges = bins.compute_edges(np.arange(bins.count))
    first = np.searchsorted(ascending, edges, side="right").astype(np.int64)
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
