"""Engines that compare a query with every node: exact, and fastest for small galleries."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import faiss

from api_schemas.config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import RowIndices, UnitVectors
from common.progress import Track, silent
from index.engines.base import NodeBits, Proposed, blocks, reserve, searched


class _Exhaustive(Sized):
    """What such engines have in common."""

    kind: IndexKind = "flat"
    exact = True
    fewest = spread = 1
    blur = 0.0

    def __init__(self) -> None:
        self.parameters: dict[str, int | float] = {}

    def worth(self, effort: float) -> int:
        """It compares with all rows itself."""
        return len(self)


class FlatEngine(_Exhaustive):
    """Compares a query with every node: exact, and fastest for small galleries."""

    def __init__(self, index: Any) -> None:
        self._index = index
        super().__init__()

    @classmethod
    def build(
        cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track = silent
    ) -> FlatEngine:
        """Hold ``vectors[rows]``."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        reserve(index.codes, len(rows) * index.code_size)
        for block in blocks(vectors, rows, track):
            index.add(block)
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nearest nodes among those allowed; ``effort`` changes nothing."""
        if allowed is None:
            return searched(self._index, queries, fetch)
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
        return searched(self._index, queries, fetch, params=parameters)

    def save(self, path: Path) -> None:
        """Write the index file."""
        faiss.write_index(self._index, str(path))


class ScanEngine(_Exhaustive):
    """Compares a query with rows that are in memory anyway; for buffers that change with every write."""

    def __init__(self, vectors: UnitVectors) -> None:
        self._vectors = vectors
        super().__init__()

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nearest rows; who allows only some scans those rows instead."""
        found = faiss.knn(queries, self._vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)
        return cast(Proposed, found)

    def save(self, path: Path) -> None:
        """A buffer has no file of its own: the item store holds its rows."""
        raise NotImplementedError
