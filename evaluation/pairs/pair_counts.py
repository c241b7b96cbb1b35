"""How many pairs each class has, without computing a score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Int64s
from evaluation.pairs.ordered_items import OrderedItems


def count_genuine(a: OrderedItems, b: OrderedItems, symmetric: bool, in_a: Bools, in_b: Bools) -> Int64s:
    """int64 [classes]: genuine pairs of the class among the chosen items of both sides.

    Args:
        in_a, in_b: bool, which items count, in the order of the sides; equal when symmetric.
    """
    n = len(a.starts) - 1
    of_a = np.bincount(a.codes[in_a], minlength=n)
    of_b = np.bincount(b.codes[in_b], minlength=n)
    counts = _count_pairs(of_a, of_b, symmetric)
    if a.groups is None or b.groups is None:
        return counts
    codes, _, cell_a, cell_b = _count_cells(a, b, in_a, in_b)
    excluded = np.bincount(codes, _count_pairs(cell_a, cell_b, symmetric), minlength=n)
    return np.asarray(counts - excluded.astype(np.int64))


def count_impostors(a: OrderedItems, b: OrderedItems, symmetric: bool, in_a: Bools, in_b: Bools) -> Int64s:
    """int64 [classes]: pairs with exactly one end in the class, among the chosen items of both sides.

    Args:
        in_a, in_b: bool, which items count, in the order of the sides; equal when symmetric.
    """
    n = len(a.starts) - 1
    of_a = np.bincount(a.codes[in_a], minlength=n)
    of_b = np.bincount(b.codes[in_b], minlength=n)
    totals = of_a * (of_b.sum() - of_b)
    if not symmetric:
        totals = totals + of_b * (of_a.sum() - of_a)
    if a.groups is None or b.groups is None:
        return np.asarray(totals.astype(np.int64))
    n_groups = int(max(a.groups.max(), b.groups.max())) + 1
    group_a = np.bincount(a.groups[in_a], minlength=n_groups)
    group_b = np.bincount(b.groups[in_b], minlength=n_groups)
    codes, groups, cell_a, cell_b = _count_cells(a, b, in_a, in_b)
    excluded = cell_a * (group_b[groups] - cell_b)
    if not symmetric:
        excluded = excluded + cell_b * (group_a[groups] - cell_a)
    remaining: Int64s = (totals - np.bincount(codes, excluded, minlength=n)).astype(np.int64)
    return remaining


def _count_pairs(a: NDArray[Any], b: NDArray[Any], symmetric: bool) -> Int64s:
    return np.asarray((a * (a - 1) // 2 if symmetric else a * b).astype(np.int64))


def _count_cells(
    a: OrderedItems, b: OrderedItems, in_a: Bools, in_b: Bools
) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Class, group, and items of either side, of every combination of class and group that occurs."""
    assert a.groups is not None
    assert b.groups is not None
    n_groups = int(max(a.groups.max(), b.groups.max())) + 1
    keys_a = (a.codes * n_groups + a.groups)[in_a]
    keys_b = (b.codes * n_groups + b.groups)[in_b]
    keys = np.unique(np.concatenate([keys_a, keys_b]))
    cell_a = np.bincount(np.searchsorted(keys, keys_a), minlength=len(keys))
    cell_b = np.bincount(np.searchsorted(keys, keys_b), minlength=len(keys))
    return keys // n_groups, keys % n_groups, cell_a, cell_b
