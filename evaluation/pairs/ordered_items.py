"""One side of the pairs: items in an order of their own, so that no figure depends on that of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Int64s, Texts, UnitVectors
from embeddings.embedding_set import EmbeddingSet


@dataclass(frozen=True, eq=False)
class OrderedItems:
    """Items in the order of their class, and within a class in one that their vectors alone decide.

    Attributes:
        vectors: float32 [n, d].
        codes: int64 [n], ascending: position of the class in the classes of the pairs.
        rows: int64 [n]: the item's row in the set that was given.
        starts: int64 [classes + 1]: items of class c are starts[c]:starts[c + 1].
        densities: float [n] or None.
        groups: int64 [n, k] or None: pairs that share the group of any column are excluded.
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
    items: EmbeddingSet,
    classes: Texts,
    densities: NDArray[Any] | None,
    groups: Int64s | None,
    keep_rows: bool = False,
) -> OrderedItems:
    """A set put in the order of ``classes``, ascending, which hold all of its own.

    Ties and random samples go by position: with ``keep_rows`` items of a class keep the order of their rows,
    as two models of the same items need; without it, figures are the same for any order of the rows.
    """
    codes = np.searchsorted(classes, items.classes)[items.codes]
    if keep_rows:
        rows = np.argsort(codes, kind="stable")
    else:
        further = [] if groups is None else list(groups.T)
        rows = np.lexsort((*further, hash_rows(items.vectors), codes))
    ordered = codes[rows].astype(np.int64)
    in_order = bool(np.all(rows[1:] > rows[:-1]))
    return OrderedItems(
        vectors=items.vectors if in_order else np.ascontiguousarray(items.vectors[rows]),
        codes=ordered,
        rows=rows.astype(np.int64),
        starts=np.searchsorted(ordered, np.arange(len(classes) + 1)).astype(np.int64),
        densities=None if densities is None else np.asarray(densities)[rows],
        groups=None if groups is None else np.ascontiguousarray(groups[rows]),
    )


HASHED_ROWS = 8192


def hash_rows(vectors: UnitVectors) -> NDArray[np.uint64]:
    """uint64 [n]: a sum over the bits of each row, the same for equal rows alone but for one in 2^64.

    Each number is multiplied by an odd constant of its column (Dietzfelbinger et al. 1997, multilinear
    hashing), so that the order of the hashes says nothing about the vectors.
    """
    odd = np.random.default_rng(0).integers(0, 2**63, vectors.shape[1], dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), HASHED_ROWS):
        block = np.ascontiguousarray(vectors[start : start + HASHED_ROWS] + np.float32(0))  # no minus zero
        mixed = block.view(np.uint32).astype(np.uint64) * odd
        mixed ^= mixed >> np.uint64(32)
        hashes[start : start + HASHED_ROWS] = mixed.sum(axis=1, dtype=np.uint64)
    return hashes
