"""One side of the pairs: items in the order of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Int64s, Texts, UnitVectors
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet


@dataclass(frozen=True, eq=False)
class OrderedItems:
    """Items in the order of their class.

    Attributes:
        vectors: float32 [n, d].
        codes: int64 [n], ascending: position of the class in the classes of the pairs.
        rows: int64 [n]: the item's row in the set that was given.
        starts: int64 [classes + 1]: items of class c are starts[c]:starts[c + 1].
        densities: float [n] or None.
        groups: int64 [n] or None: pairs within one group are excluded.
    """

    vectors: UnitVectors
    codes: Int64s
    rows: Int64s
    starts: Int64s
    densities: NDArray[Any] | None
    groups: Int64s | None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def sizes(self) -> Int64s:
        """int64 [classes]: items per class."""
        return np.diff(self.starts)

    def select(self, positions: Int64s) -> OrderedItems:
        """The items at ascending positions."""
        codes = self.codes[positions]
        return OrderedItems(
            vectors=self.vectors[positions],
            codes=codes,
            rows=self.rows[positions],
            starts=np.searchsorted(codes, np.arange(len(self.starts))).astype(np.int64),
            densities=None if self.densities is None else self.densities[positions],
            groups=None if self.groups is None else self.groups[positions],
        )


def order_items(
    items: EmbeddingSet, classes: Texts, densities: NDArray[Any] | None, groups: Int64s | None
) -> OrderedItems:
    """A set put in the order of ``classes``, ascending, which hold all of its own."""
    codes = np.searchsorted(classes, items.classes)[items.codes]
    rows = np.argsort(codes, kind="stable")
    ordered = codes[rows].astype(np.int64)
    in_order = bool(np.all(rows[1:] > rows[:-1]))
    return OrderedItems(
        vectors=items.vectors if in_order else np.ascontiguousarray(items.vectors[rows]),
        codes=ordered,
        rows=rows.astype(np.int64),
        starts=np.searchsorted(ordered, np.arange(len(classes) + 1)).astype(np.int64),
        densities=None if densities is None else np.asarray(densities)[rows],
        groups=None if groups is None else groups[rows],
    )


def read_groups(sets: list[EmbeddingSet], column: str | None) -> Sequence[Int64s | None]:
    """int64 [n] of one or two sets: equal where a metadata column is; None for no column.

    Raises:
        InputError: a set lacks the column.
    """
    if column is None:
        return [None for _ in sets]
    for part in sets:
        if column not in part.metadata:
            known = ", ".join(sorted(part.metadata)) or "none"
            raise InputError(f"There is no column '{column}' to exclude pairs by; the data has: {known}.")
    values = [np.asarray(part.metadata[column]).astype(np.str_) for part in sets]
    codes = np.unique(np.concatenate(values), return_inverse=True)[1].astype(np.int64)
    return np.split(codes, [len(values[0])])[: len(sets)]


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
