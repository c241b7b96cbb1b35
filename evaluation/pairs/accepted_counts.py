"""How many pairs of each class are accepted at thresholds that are known beforehand."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Float32s, Int64s
from evaluation.kernels.impostor_kernels import count_at_levels
from evaluation.pairs.pairs import BLOCK_ROWS, Pairs
from evaluation.pairs.threads import run_in_threads, split_rows


def count_accepted_per_class(pairs: Pairs, thresholds: ArrayLike) -> tuple[Int64s, Int64s]:
    """Accepted pairs per class.

    Args:
        pairs: all are walked once.
        thresholds: float32 [k], any order; accepted iff score >= threshold.

    Returns:
        genuine, impostor: int64 [classes, k]; an impostor pair counts for both of its classes.
    """
    ascending, order = _sort(thresholds)
    counts = np.zeros((len(split_rows(BLOCK_ROWS)), len(pairs.classes), len(order) + 1), dtype=np.int64)
    for block in pairs.iterate_blocks():
        view = pairs.view(block)
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
        level = np.searchsorted(ascending, part.scores, side="right")
        counts += np.bincount(part.codes * width + level, minlength=len(counts))
    return _restore_order(cumulate_levels(counts.reshape(-1, width)), order)


def cumulate_levels(counts: Int64s) -> Int64s:
    """From pairs that reach exactly m of k ascending thresholds, int64 [classes, k + 1], to accepted pairs.

    Returns:
        int64 [classes, k]: the pairs accepted at each threshold.
    """
    return np.cumsum(counts[:, ::-1], axis=1)[:, -2::-1]


def _sort(thresholds: ArrayLike) -> tuple[Float32s, Int64s]:
    given = np.asarray(thresholds, dtype=np.float32)
    order = np.argsort(given, kind="stable")
    return given[order], order


def _restore_order(accepted: Int64s, order: Int64s) -> Int64s:
    restored = np.empty_like(accepted)
    restored[:, order] = accepted
    return restored
