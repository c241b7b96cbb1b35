"""Pairs in the order of the thresholds they reach, and what each class accepts at each threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.level_kernels import Steps, count_levels, place_pairs
from evaluation.pairs import Integers
from evaluation.sweep import Sweep
from evaluation.threads import in_threads
from evaluation.top_pairs import Chunk

SHARES = 2  # of the kept pairs, sorted side by side; the memory of a table of class counts each


@dataclass(frozen=True, eq=False)
class Levels:
    """Pairs by level: level m holds the pairs that reach exactly m of the ascending thresholds.

    Attributes:
        ascending: float32 [k], the thresholds.
        impostor_a, impostor_b: positions of impostor pairs that reach one or more; by level.
        impostor_starts: int64 [k + 2]: level m stands at starts[m]:starts[m + 1].
        genuine_a, genuine_b, genuine_starts: the same for genuine pairs.
        genuine_accepted, impostor_accepted: int64 [classes, k] at each threshold.
    """

    ascending: NDArray[np.float32]
    impostor_a: NDArray[Any]
    impostor_b: NDArray[Any]
    impostor_starts: Integers
    genuine_a: NDArray[np.int32]
    genuine_b: NDArray[np.int32]
    genuine_starts: Integers
    genuine_accepted: Integers
    impostor_accepted: Integers


def levels_of(found: Sweep, ascending: NDArray[np.float32]) -> Levels:
    """Sort the kept pairs by level; the sweep's own list of them is used up, chunk by chunk."""
    k, n_classes = len(ascending), len(found.pairs.classes)
    bins, codes_a, codes_b = found.bins, found.pairs.a.codes, found.pairs.b.codes
    first = np.searchsorted(ascending, bins.edge(np.arange(bins.count)), side="right").astype(np.int64)
    first[0] = 0  # the first bin also holds what lies below its edge
    steps = Steps(ascending, bins.scale, bins.lowest, first)
    shares = found.top.take(SHARES)
    sizes = np.zeros((SHARES, k + 1), dtype=np.int64)
    in_threads(_count, [(share, steps, sizes[number]) for number, share in enumerate(shares)])
    sizes[:, 0] = 0
    starts = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))]).astype(np.int64)
    cursors = starts[:-1] + np.cumsum(sizes, axis=0) - sizes  # within a level, share after share
    placed_a, placed_b = (np.empty(starts[-1], dtype=found.top.dtype) for _ in range(2))
    counts = np.zeros((SHARES, n_classes, k + 1), dtype=np.int64)
    in_threads(
        _place,
        [
            (share, steps, codes_a, codes_b, cursors[number], placed_a, placed_b, counts[number])
            for number, share in enumerate(shares)
        ],
    )
    level = np.searchsorted(ascending, found.genuine.scores, side="right")
    genuine_counts = np.zeros((n_classes, k + 1), dtype=np.int64)
    np.add.at(genuine_counts, (found.genuine.codes, level), 1)
    order = np.argsort(level, kind="stable")
    return Levels(
        ascending=ascending,
        impostor_a=placed_a,
        impostor_b=placed_b,
        impostor_starts=starts,
        genuine_a=found.genuine.a[order],
        genuine_b=found.genuine.b[order],
        genuine_starts=np.searchsorted(level[order], np.arange(k + 2)).astype(np.int64),
        genuine_accepted=_accepted(genuine_counts),
        impostor_accepted=_accepted(counts.sum(axis=0)),
    )


def _count(share: list[Chunk], steps: Steps, sizes: Integers) -> None:
    for _, _, scores in share:
        count_levels(scores, steps, sizes)


def _place(share: list[Chunk], steps: Steps, *where: NDArray[Any]) -> None:
    while share:
        place_pairs(*share.pop(), steps, *where)


def _accepted(counts: Integers) -> Integers:
    """From pairs at exactly m thresholds to pairs accepted at each of the k."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, -2::-1]
