"""Engines propose candidates; they never decide.

Every engine holds unit rows, one node per distinct vector, and answers by inner product. ``efSearch``
is passed with every search: FAISS falls back to 16 when parameters are given without it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.config import IndexConfig
from api_schemas.errors import BundleError
from api_schemas.manifest import IndexDescription, IndexKind
from decision.progress import Track, silent
from decision.similarity import Vectors
from index.nodes import Rows

ADD_BLOCK = 32_768
FEWEST = 16
BEAM = 128  # ef_search up to so many nodes
BEAM_UP_TO = 200_000
SQ8_FEWEST = 64  # 8 bits a number leave many near neighbours in a wrong order
NodeBits = NDArray[np.uint8]  # one bit a node, the first in the lowest bit
Proposed = tuple[NDArray[np.float32], Rows]  # spelled out within a call it would be made anew each time


class Engine(Protocol):
    """Proposes nodes for queries.

    Attributes:
        kind: as the manifest names it.
        exact: whether its similarities are all that there are, up to float32 rounding.
        fewest: the fewest candidates a search should fetch, so that re-scoring can put them right.
        parameters: everything it was built with.
    """

    kind: IndexKind
    exact: bool
    fewest: int
    parameters: dict[str, int]

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """Similarities and nodes [q, fetch], best first, -1 where none; ``effort`` multiplies efSearch."""

    def save(self, path: Path) -> None:
        """Write the index file."""


class FlatEngine:
    """Compares a query with every node: exact, and fastest for small galleries."""

    kind: IndexKind = "flat"
    exact = True
    fewest = 1

    def __init__(self, index: Any) -> None:
        self._index = index
        self.parameters: dict[str, int] = {}

    @classmethod
    def build(cls, vectors: Vectors, rows: Rows, config: IndexConfig, track: Track = silent) -> FlatEngine:
        """Hold ``vectors[rows]``."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        _reserve(index.codes, len(rows) * index.code_size)
        for block in track(_blocks(rows), "index", len(range(0, len(rows), ADD_BLOCK))):
            index.add(np.ascontiguousarray(vectors[block]))
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Vectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nearest nodes among those allowed; ``effort`` changes nothing."""
        if allowed is None:
            return _searched(self._index, queries, fetch)
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
        return _searched(self._index, queries, fetch, params=parameters)

    def save(self, path: Path) -> None:
        """Write the index file."""
        faiss.write_index(self._index, str(path))


class ScanEngine:
    """Compares a query with rows that are in memory anyway; for buffers that change with every write."""

    kind: IndexKind = "flat"
    exact = True
    fewest = 1

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.parameters: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Vectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nearest rows; who allows only some scans those rows instead."""
        found = faiss.knn(queries, self._vectors, fetch, metric=faiss.METRIC_INNER_PRODUCT)
        return cast(Proposed, found)

    def save(self, path: Path) -> None:
        """A buffer has no file of its own: the item store holds its rows."""
        raise NotImplementedError


class HnswEngine:
    """A navigable small-world graph (arXiv 1603.09320) over float32 rows, or over 8 bits a number."""

    exact = False

    def __init__(self, index: Any, kind: IndexKind, parameters: dict[str, int]) -> None:
        self._index = index
        self.kind: IndexKind = kind
        self.parameters = parameters
        self.fewest = SQ8_FEWEST if kind == "hnsw_sq8" else FEWEST
        self._by_beam: dict[int, Any] = {}  # making one takes as long as a tenth of a search

    @classmethod
    def build(
        cls, vectors: Vectors, rows: Rows, config: IndexConfig, kind: IndexKind, track: Track = silent
    ) -> HnswEngine:
        """Build the graph over ``vectors[rows]``."""
        dim = vectors.shape[1]
        if kind == "hnsw_sq8":
            index: Any = faiss.IndexHNSWSQ(
                dim, faiss.ScalarQuantizer.QT_8bit, config.m, faiss.METRIC_INNER_PRODUCT
            )
            sample = rows if len(rows) <= 100_000 else rows[:: len(rows) // 100_000]
            index.train(np.ascontiguousarray(vectors[sample]))
        else:
            index = faiss.IndexHNSWFlat(dim, config.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.ef_construction
        storage = faiss.downcast_index(index.storage)
        _reserve(storage.codes, len(rows) * storage.code_size)
        _reserve(index.hnsw.neighbors, len(rows) * (2 * config.m + 2))
        for block in track(_blocks(rows), "index", len(range(0, len(rows), ADD_BLOCK))):
            index.add(np.ascontiguousarray(vectors[block]))
        beam = beam_for(len(rows)) if config.ef_search is None else config.ef_search
        parameters = {"m": config.m, "ef_construction": config.ef_construction, "ef_search": beam}
        return cls(index, kind, parameters)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Vectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nodes that a beam of ``max(fetch, effort * ef_search)`` finds among those allowed."""
        beam = max(fetch, min(len(self), int(self.parameters["ef_search"] * effort)))
        if allowed is None:
            parameters = self._by_beam.get(beam)
            if parameters is None:
                parameters = self._by_beam[beam] = faiss.SearchParametersHNSW(efSearch=beam)
            return _searched(self._index, queries, fetch, params=parameters)
        parameters = faiss.SearchParametersHNSW(efSearch=beam, sel=faiss.IDSelectorBitmap(allowed))
        return _searched(self._index, queries, fetch, params=parameters)

    def link(self, nodes: Rows, near: Rows) -> None:
        """Give each of [n] nodes one more way in, from the first of ``near`` [n, f] that has a link to spare.

        A search for a node's own vector that ends among ``near`` then goes one step further. Links that are
        there stay; a node whose ``near`` have none to spare, or lead to it already, gets none.
        """
        links = faiss.rev_swig_ptr(self._index.hnsw.neighbors.data(), self._index.hnsw.neighbors.size())
        starts = faiss.vector_to_array(self._index.hnsw.offsets).astype(np.int64)
        width = self._index.hnsw.cum_nb_neighbors(1)
        for node, around in zip(nodes.tolist(), near.tolist(), strict=True):
            ways = [links[starts[other] : starts[other] + width] for other in around if other >= 0]
            if any((way == node).any() for way in ways):
                continue
            spare = next((way for way in ways if way[-1] < 0), None)
            if spare is not None:
                spare[np.argmax(spare < 0)] = node

    def save(self, path: Path) -> None:
        """Write the index file."""
        faiss.write_index(self._index, str(path))


def beam_for(nodes: int) -> int:
    """``ef_search`` where none is asked for: what recall@10 of 0.95 takes grows with the set.

    Measured with m = 32, ef_construction = 200 on rows around many centres in 128 dimensions: 16 at
    100,000 and 256 at 1,000,000.
    """
    return max(BEAM, 32 * round(BEAM / 32 * math.sqrt(nodes / BEAM_UP_TO)))


def _searched(index: Any, queries: Vectors, fetch: int, params: Any = None) -> Proposed:
    """FAISS's own search. ``faiss.contrib.torch_utils``, which pytorch-metric-learning imports, puts one that
    knows no parameters in its place for the whole process, and keeps the original as ``search_numpy``."""
    search = getattr(index, "search_numpy", index.search)
    return cast(Proposed, search(queries, fetch, params=params))


def build_engine(
    vectors: Vectors, rows: Rows, config: IndexConfig, kind: IndexKind, track: Track = silent
) -> Engine:
    """An engine over ``vectors[rows]``, node i holding row ``rows[i]``."""
    if kind == "flat":
        return FlatEngine.build(vectors, rows, config, track)
    return HnswEngine.build(vectors, rows, config, kind, track)


def open_engine(path: Path, description: IndexDescription) -> Engine:
    """Memory-map an index file whose checksum has been verified; it is read-only from then on.

    Raises:
        BundleError: FAISS cannot read the file, or it is of another kind than described.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise BundleError(
            f"{path} is not an index that FAISS can read: {str(error).splitlines()[0]}."
        ) from None
    expected = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat, "hnsw_sq8": faiss.IndexHNSWSQ}
    if not isinstance(index, expected[description.kind]) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(
            f"{path} holds a {type(index).__name__}, the manifest says {description.kind}: "
            "build the bundle again."
        )
    if description.kind == "flat":
        return FlatEngine(index)
    parameters = {name: int(value) for name, value in description.parameters.items()}
    missing = {"m", "ef_construction", "ef_search"} - parameters.keys()
    if missing:
        raise BundleError(f"{path}: the manifest's index parameters lack {', '.join(sorted(missing))}.")
    return HnswEngine(index, description.kind, parameters)


def _reserve(buffer: Any, size: int) -> None:
    """Room for all that is to come: a buffer that grows by doubling takes up to three times its size."""
    buffer.resize(size)
    buffer.resize(0)


def _blocks(rows: Rows) -> Iterable[Rows]:
    return (rows[start : start + ADD_BLOCK] for start in range(0, len(rows), ADD_BLOCK))
