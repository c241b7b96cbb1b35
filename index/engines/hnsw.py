"""HNSW graphs; ``efSearch`` is passed with every search: FAISS falls back to 16 when it is not."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import RowIndices, UnitVectors
from common.progress import Track
from index.engines.engine import AllowedNodes, Candidates, FaissEngine, iterate_blocks, reserve, search_faiss

BEAM = 128  # ef_search up to so many nodes
BEAM_UP_TO = 200_000
SQ8_SAMPLE = 100_000  # rows the ranges of the 8 bits are taken from
ROWS_PER_STEP = 115  # rows compared in the time of one step of a beam: 29 ns against 3.3 us at 128 numbers
NODE_BYTES = 16  # level, offset and the links of the upper layers, on average


class HnswEngine(FaissEngine):
    """A navigable small-world graph (arXiv 1603.09320) over float32 rows."""

    kind: ClassVar[IndexKind] = "hnsw"
    faiss_type = faiss.IndexHNSWFlat
    required_parameters = frozenset({"m", "ef_construction", "ef_search"})
    bytes_per_number: ClassVar[int] = 4
    min_candidates = 16
    similarity_error = 1e-3  # what 8 bits a number may hide between two similarities
    has_links = True

    def __init__(self, index: Any, parameters: dict[str, int | float]) -> None:
        super().__init__(index, parameters)
        self._params_by_beam: dict[int, Any] = {}  # making one takes as long as a tenth of a search

    @classmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        index = cls._create_index(vectors, rows, config.m)
        index.hnsw.efConstruction = config.ef_construction
        storage = faiss.downcast_index(index.storage)
        reserve(storage.codes, len(rows) * storage.code_size)
        reserve(index.hnsw.neighbors, len(rows) * (2 * config.m + 2))
        for block in iterate_blocks(vectors, rows, track):
            index.add(block)
        beam = choose_beam(len(rows)) if config.ef_search is None else config.ef_search
        return cls(index, {"m": config.m, "ef_construction": config.ef_construction, "ef_search": beam})

    @classmethod
    def _create_index(cls, vectors: UnitVectors, rows: RowIndices, m: int) -> Any:
        """An empty FAISS index, trained if need be."""
        return faiss.IndexHNSWFlat(vectors.shape[1], m, faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Rows, and ``m`` links a node, twice that at the bottom."""
        return nodes * (cls.bytes_per_number * dim + 2 * config.m * 4 + NODE_BYTES)

    @classmethod
    def select_requested_parameters(
        cls, parameters: dict[str, int | float], nodes: int
    ) -> dict[str, int | float]:
        """Without an ``ef_search`` that followed from the number of nodes."""
        requested = super().select_requested_parameters(parameters, nodes)
        if requested.get("ef_search") == choose_beam(nodes):
            del requested["ef_search"]
        return requested

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The nodes that a beam of ``max(fetch, effort * ef_search)`` finds among those allowed."""
        beam = max(fetch, self._compute_beam(effort))
        if allowed is not None:
            params = faiss.SearchParametersHNSW(efSearch=beam, sel=faiss.IDSelectorBitmap(allowed.bits))
        elif (params := self._params_by_beam.get(beam)) is None:
            params = self._params_by_beam[beam] = faiss.SearchParametersHNSW(efSearch=beam)
        return search_faiss(self._index, queries, fetch, params)

    @property
    def probe_efforts(self) -> list[float]:
        """Efforts of beams of 4, 16, 64, ...: a wider beam visits all that a narrow one does.

        Of 1,000,000 nodes these leave 39, 6 and 0.05 % to the next, of 100,000 nodes 3, 0.02 % and none.
        """
        beam = self.parameters["ef_search"]
        return [4**power / beam for power in range(1, math.ceil(math.log(beam, 4)))]

    def count_comparable_rows(self, effort: float) -> int:
        """So many rows take as long as a beam's steps."""
        return self._compute_beam(effort) * ROWS_PER_STEP

    def _compute_beam(self, effort: float) -> int:
        return min(len(self), round(self.parameters["ef_search"] * effort))

    def add_links(self, nodes: RowIndices, near: RowIndices) -> None:
        """Give each of [n] nodes one more way in, from the first of ``near`` [n, f] that has a link to spare.

        A search for a node's own vector that ends among ``near`` then goes one step further. Links that are
        there stay; a node whose ``near`` have none to spare, or lead to it already, gets none.
        """
        links = faiss.rev_swig_ptr(self._index.hnsw.neighbors.data(), self._index.hnsw.neighbors.size())
        starts = faiss.vector_to_array(self._index.hnsw.offsets).astype(np.int64)
        width = self._index.hnsw.cum_nb_neighbors(1)
        for node, around in zip(nodes.tolist(), near.tolist(), strict=True):
            lists = [links[starts[source] : starts[source] + width] for source in around if source >= 0]
            if any((linked == node).any() for linked in lists):
                continue
            spare = next((linked for linked in lists if linked[-1] < 0), None)
            if spare is not None:
                spare[np.argmax(spare < 0)] = node


class HnswSq8Engine(HnswEngine):
    """The same graph over 8 bits a number."""

    kind: ClassVar[IndexKind] = "hnsw_sq8"
    faiss_type = faiss.IndexHNSWSQ
    bytes_per_number = 1
    min_candidates = 64  # 8 bits a number leave many near neighbours in a wrong order
    candidates_per_result = 4

    @classmethod
    def _create_index(cls, vectors: UnitVectors, rows: RowIndices, m: int) -> Any:
        index = faiss.IndexHNSWSQ(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, m, faiss.METRIC_INNER_PRODUCT
        )
        sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), SQ8_SAMPLE)).astype(np.int64)]
        index.train(np.ascontiguousarray(vectors[sample]))
        return index

    @classmethod
    def estimate_training_bytes(cls, nodes: int, dim: int) -> int:
        return 4 * dim * min(nodes, SQ8_SAMPLE)


def choose_beam(nodes: int) -> int:
    """``ef_search`` where none is configured: what recall@10 of 0.95 takes grows with the set.

    Measured with m = 32, ef_construction = 200 on rows around many centres in 128 dimensions: 16 at
    100,000 and 256 at 1,000,000.
    """
    return max(BEAM, 32 * round(BEAM / 32 * math.sqrt(nodes / BEAM_UP_TO)))
