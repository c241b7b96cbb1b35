"""A block of scores with what tells its impostor pairs: the argument of every compiled loop over a block."""

from __future__ import annotations

from typing import NamedTuple

from common.array_types import Float32s, Int64s
from evaluation.kernels.scalar_kernels import compiled


class BlockView(NamedTuple):
    """A block of scores and which of them are impostor pairs.

    Attributes:
        scores: float32 [m, n].
        row0, column0: position of the first row in ``a`` and of the first column in ``b``.
        spans: int64 [a, 3]: the impostor columns of a row are s[0]:s[1] and from s[2] on.
        codes_a, codes_b: int64: the class of every item.
        groups_a, groups_b: int64: pairs within a group are excluded; empty where there are no groups.
    """

    scores: Float32s
    row0: int
    column0: int
    spans: Int64s
    codes_a: Int64s
    codes_b: Int64s
    groups_a: Int64s
    groups_b: Int64s


@compiled
def find_run(view: BlockView, r: int, part: int) -> tuple[int, int]:
    """The columns of the block's row r that are impostors: its first (0) or second (1) run."""
    n = view.scores.shape[1]
    span = view.spans[view.row0 + r]
    first = max(0, span[2 * part] - view.column0)
    stop = n if part else min(n, span[1] - view.column0)
    return first, max(first, stop)


@compiled
def is_excluded(view: BlockView, r: int, column: int) -> bool:
    """Whether the pair lies within one group."""
    if len(view.groups_a) == 0:
        return False
    return bool(view.groups_a[view.row0 + r] == view.groups_b[view.column0 + column])
