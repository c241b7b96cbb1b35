"""Pairs in the order of the thresholds they reach, and what each class accepts at each threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from evaluation.kernels.level_kernels import Steps, count_levels, place_pairs
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import in_threads
from evaluation.pairs.top_impostors import Chunk, room

SHARES = 2  # of the kept pairs, sorted side by side; the memory of a table of class counts each


@dataclass(frozen=True, eq=False)
class Sorted:
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
class Levels:
    """Impostor and genuine pairs by level; ``accepted`` counts a genuine pair once."""

    impostor: Sorted
    genuine: Sorted


def levels_of(found: Sweep, ascending: Float32s) -> Levels:
    """Sort the pairs by level; the sweep's own list of impostor pairs is used up, chunk by chunk.

    Args:
        found: whose kept pairs are all that reach the lowest threshold.
        ascending: float32 [k], the thresholds.
    """
    bins = found.bins
    first = np.searchsorted(ascending, bins.edge(np.arange(bins.count)), side="right").astype(np.int64)
    first[0] = 0  # the first bin also holds what lies below its edge
    steps = Steps(ascending, bins.scale, bins.lowest, first)
    impostor = _sorted(found, steps, [(chunks, _drained(chunks)) for chunks in found.top.take(SHARES)])
    genuine = _sorted(found, steps, [(_genuine(found.pairs), _genuine(found.pairs))])
    return Levels(impostor, replace(genuine, accepted=genuine.accepted // 2))


def _drained(chunks: list[Chunk]) -> Iterator[Chunk]:
    while chunks:
        yield chunks.pop()


def _genuine(pairs: Pairs) -> Iterator[Chunk]:
    return ((part.a, part.b, part.scores) for part in pairs.genuine_parts())


def _sorted(found: Sweep, steps: Steps, shares: Sequence[tuple[Iterable[Chunk], Iterable[Chunk]]]) -> Sorted:
    """Sort the chunks of all shares side by side; each share is given twice, to be counted and placed."""
    k, pairs = len(steps.ascending), found.pairs
    sizes = np.zeros((len(shares), k + 1), dtype=np.int64)
    in_threads(_count, [(share, steps, size) for (share, _), size in zip(shares, sizes, strict=True)])
    sizes[:, 0] = 0
    starts = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))]).astype(np.int64)
    cursors = starts[:-1] + np.cumsum(sizes, axis=0) - sizes  # within a level, share after share
    placed = [room(int(starts[-1]), found.top.dtype) for _ in range(2)]
    counts = np.zeros((len(shares), len(pairs.classes), k + 1), dtype=np.int64)
    in_threads(
        _place,
        [
            (share, steps, pairs.a.codes, pairs.b.codes, cursor, *placed, count)
            for (_, share), cursor, count in zip(shares, cursors, counts, strict=True)
        ],
    )
    return Sorted(placed[0], placed[1], starts, _accepted(counts.sum(axis=0)))


def _count(share: Iterable[Chunk], steps: Steps, sizes: Int64s) -> None:
    for _, _, scores in share:
        count_levels(scores, steps, sizes)


def _place(share: Iterable[Chunk], steps: Steps, *where: NDArray[Any]) -> None:
    for chunk in share:
        place_pairs(*chunk, steps, *where)


def _accepted(counts: Int64s) -> Int64s:
    """From pairs at exactly m thresholds to pairs accepted at each of the k."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, -2::-1]
