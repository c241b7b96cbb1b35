"""Distinct vectors: one node for all rows that hold the same vector.

Exact duplicates in an HNSW graph displace the links of other rows, which then cannot be found by any
search (qdrant pull request 10239; apache/lucene issue 13611). The engine therefore sees every distinct
vector once, and a node leads to all its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, RowIndices, UnitVectors

BLOCK_ROWS = 65_536
HASH_ROWS = 1_024  # widened to 64 bits and multiplied within the cache
_NONE: RowIndices = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of an engine, and the rows of each.

    Attributes:
        size: number of nodes.
        is_plain: every row is its own node, under the same number; then there are no arrays.
        node_of_row: int64 [n], each row's node.
        rows: int64 [n], the rows of node 0, of node 1, ..., by rank within a node.
        starts: int64 [nodes + 1], where each node's rows start in ``rows``.
    """

    size: int
    is_plain: bool
    node_of_row: RowIndices
    rows: RowIndices
    starts: RowIndices

    @classmethod
    def from_node_of_row(cls, node_of_row: NDArray[np.integer], rank: NDArray[np.integer]) -> Nodes:
        """Arrange rows by node, and by ``rank`` [n] within a node."""
        n = len(node_of_row)
        if n and node_of_row[-1] == n - 1 and np.array_equal(node_of_row, np.arange(n)):
            return cls(n, True, _NONE, _NONE, _NONE)
        nodes = np.asarray(node_of_row, dtype=np.int64)
        rows = np.lexsort((rank, nodes))
        starts = np.zeros(int(nodes.max(initial=-1)) + 2, dtype=np.int64)
        np.cumsum(np.bincount(nodes), out=starts[1:])
        return cls(len(starts) - 1, False, nodes, rows, starts)

    def __len__(self) -> int:
        return self.size

    @property
    def firsts(self) -> RowIndices:
        """int64 [nodes]: the first row of each node."""
        return np.arange(self.size) if self.is_plain else self.rows[self.starts[:-1]]

    @property
    def are_shared(self) -> Bools:
        """bool [nodes]: whether several rows share a node."""
        return np.zeros(self.size, dtype=bool) if self.is_plain else np.diff(self.starts) > 1

    @cached_property
    def n_shared(self) -> int:
        """Number of nodes with more than one row."""
        return int(self.are_shared.sum())

    def expand(self, nodes: RowIndices, at_most: int | None) -> RowIndices:
        """Rows of candidate nodes [q, f], int64 [q, w], -1 where there is none.

        Args:
            at_most: rows taken of one node, the first in its order; all if None.
        """
        if self.is_plain:
            return nodes
        valid = nodes >= 0
        safe = np.where(valid, nodes, 0)
        counts = np.where(valid, self.starts[safe + 1] - self.starts[safe], 0)
        if at_most is not None:
            counts = np.minimum(counts, at_most)
        ends = np.cumsum(counts, axis=1)
        width = int(ends[:, -1].max(initial=0)) if nodes.shape[1] else 0
        out = np.full((len(nodes), width), -1, dtype=np.int64)
        total = int(counts.sum())
        flat = counts.ravel()
        within = np.arange(total) - np.repeat(np.cumsum(flat) - flat, flat)
        query = np.repeat(np.arange(len(nodes)), counts.sum(axis=1))
        column = np.repeat((ends - counts).ravel(), flat) + within
        out[query, column] = self.rows[np.repeat(self.starts[safe].ravel(), flat) + within]
        return out


def find_distinct_vectors(vectors: UnitVectors) -> tuple[RowIndices, RowIndices]:
    """Rows that hold the first copy of each distinct vector, and the node of every row.

    Args:
        vectors: float32 [n, d], finite; read in blocks, so it may be memory-mapped.

    Returns:
        firsts: int64 [nodes], ascending; node i is the vector of row ``firsts[i]``.
        node_of_row: int64 [n].
    """
    n, dim = vectors.shape
    # odd random multipliers: a multilinear hash of the row's bits, and every hit is compared in full below
    factors = np.random.default_rng(0x11EE).integers(1, 2**63, size=dim, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    for start in range(0, n, HASH_ROWS):
        block = np.ascontiguousarray(vectors[start : start + HASH_ROWS]) + np.float32(0)  # -0 becomes 0
        bits = block.view(np.uint32).astype(np.uint64)
        hashes[start : start + HASH_ROWS] = (bits * factors).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    opens = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])
    if len(opens) == n:
        rows = np.arange(n)
        return rows, rows
    first_of_row = np.arange(n)
    ends = np.r_[opens[1:], n]
    several = ends - opens > 1
    for start, end in zip(opens[several].tolist(), ends[several].tolist(), strict=True):
        _gather_equals(vectors, order[start:end], first_of_row)
    firsts, node_of_row = np.unique(first_of_row, return_inverse=True)
    return firsts, node_of_row


def _gather_equals(vectors: UnitVectors, rows: RowIndices, first_of_row: RowIndices) -> None:
    while len(rows) > 1:
        same = np.empty(len(rows), dtype=bool)
        for start in range(0, len(rows), BLOCK_ROWS):
            chunk = rows[start : start + BLOCK_ROWS]
            same[start : start + BLOCK_ROWS] = (vectors[chunk] == vectors[rows[0]]).all(axis=1)
        first_of_row[rows[same]] = rows[0]
        rows = rows[~same]
