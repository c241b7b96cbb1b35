"""Engines that compare a query with every node: exact, and fastest for small galleries."""

from __future__ import annotations

from typing import ClassVar, Self, cast

import faiss

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import RowIndices, UnitVectors
from common.progress import Track
from index.engines.engine import (
    AllowedNodes,
    Candidates,
    Engine,
    FaissEngine,
    iterate_blocks,
    reserve,
    search_faiss,
)


class FlatEngine(FaissEngine):
    """Holds float32 rows and compares a query with all of them."""

    kind: ClassVar[IndexKind] = "flat"
    faiss_type = faiss.IndexFlat
    auto_up_to = 20_000  # distinct vectors that it answers in about a millisecond
    exact = True

    @classmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        index = faiss.IndexFlatIP(vectors.shape[1])
        reserve(index.codes, len(rows) * index.code_size)
        for block in iterate_blocks(vectors, rows, track):
            index.add(block)
        return cls(index, {})

    @classmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        return nodes * 4 * dim

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The nearest nodes among those allowed; ``effort`` changes nothing."""
        params = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed.bits))
        return search_faiss(self._index, queries, fetch, params)


class BufferEngine(Engine):
    """Compares a query with rows that are in memory anyway; for buffers that change with every write."""

    exact = True

    def __init__(self, vectors: UnitVectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The nearest rows; a search among few rows scans those instead."""
        nearest = faiss.knn(queries, self._vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)
        return cast(Candidates, nearest)
