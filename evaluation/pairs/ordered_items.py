"""One side of the pairs: items in the order of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Int64s, Texts, UnitVectors
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
    """int64 [n] of one or two sets: equal where a metadata column is; None for no column."""
    if column is None:
        return [None for _ in sets]
    for part in sets:
        if column not in part.metadata:
            known = ", ".join(sorted(part.metadata)) or "none"
            raise InputError(f"There is no column '{column}' to exclude pairs by; the data has: {known}.")
    values = [np.asarray(part.metadata[column]).astype(np.str_) for part in sets]
    codes = np.unique(np.concatenate(values), return_inverse=True)[1].astype(np.int64)
    return np.split(codes, [len(values[0])])[: len(sets)]
