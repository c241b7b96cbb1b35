"""How many pairs of each class are accepted at thresholds that are known beforehand."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Float32s, Int64s
from evaluation.kernels.impostor_kernels import count_pairs_at
from evaluation.pairs.pairs import BLOCK_ROWS, Pairs
from evaluation.pairs.threads import in_threads, row_shares


def accepted_per_class(pairs: Pairs, thresholds: ArrayLike) -> tuple[Int64s, Int64s]:
    """Accepted pairs per class.

    Args:
        pairs: all are walked once.
        thresholds: float32 [k], any order; accepted iff score >= threshold.

    Returns:
        genuine, impostor: int64 [classes, k]; an impostor pair counts for both of its classes.
    """
    ascending, order = _in_order(thresholds)
    shares = row_shares(BLOCK_ROWS)
    counts = np.zeros((len(shares), len(pairs.classes), len(order) + 1), dtype=np.int64)
    for block in pairs.blocks():
        in_threads(
            count_pairs_at,
            [
                (pairs.place(block), share, ascending, counts[number])
                for number, share in enumerate(row_shares(len(block.scores)))
            ],
        )
    return accepted_genuine(pairs, thresholds), _accepted(counts.sum(axis=0), order)


def accepted_genuine(pairs: Pairs, thresholds: ArrayLike) -> Int64s:
    """int64 [classes, k]: accepted genuine pairs at thresholds float32 [k] in any order."""
    ascending, order = _in_order(thresholds)
    width = len(order) + 1
    counts = np.zeros(len(pairs.classes) * width, dtype=np.int64)
    for part in pairs.genuine_parts():
        level = np.searchsorted(ascending, part.scores, side="right")
        counts += np.bincount(part.codes * width + level, minlength=len(counts))
    return _accepted(counts.reshape(-1, width), order)


def _in_order(thresholds: ArrayLike) -> tuple[Float32s, Int64s]:
    given = np.asarray(thresholds, dtype=np.float32)
    order = np.argsort(given, kind="stable")
    return given[order], order


def _accepted(reached: Int64s, order: Int64s) -> Int64s:
    """From pairs at exactly m ascending thresholds to pairs accepted at each, in the order given."""
    accepted = np.empty((len(reached), len(order)), dtype=np.int64)
    accepted[:, order] = np.cumsum(reached[:, ::-1], axis=1)[:, -2::-1]
    return accepted
