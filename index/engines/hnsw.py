"""HNSW graphs; ``efSearch`` is passed with every search: FAISS falls back to 16 when it is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from api_schemas.config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import RowIndices, UnitVectors
from common.progress import Track, silent
from index.engines.base import NodeBits, Proposed, blocks, reserve, searched

FEWEST = 16
BEAM = 128  # ef_search up to so many nodes
BEAM_UP_TO = 200_000
SQ8_FEWEST = 64  # 8 bits a number leave many near neighbours in a wrong order
SQ8_SPREAD = 4
SQ8_SAMPLE = 100_000  # rows the ranges of the 8 bits are taken from
ROWS_PER_STEP = 115  # rows compared in the time of one step of a beam: 29 ns against 3.3 us at 128 numbers


class HnswEngine:
    """A navigable small-world graph (arXiv 1603.09320) over float32 rows, or over 8 bits a number."""

    exact = False
    blur = 1e-3  # what 8 bits a number may hide between two similarities

    def __init__(self, index: Any, kind: IndexKind, parameters: dict[str, int | float]) -> None:
        self._index = index
        self.kind: IndexKind = kind
        self.parameters = parameters
        self.fewest, self.spread = (SQ8_FEWEST, SQ8_SPREAD) if kind == "hnsw_sq8" else (FEWEST, 1)
        self._by_beam: dict[int, Any] = {}  # making one takes as long as a tenth of a search

    @classmethod
    def build(
        cls,
        vectors: UnitVectors,
        rows: RowIndices,
        config: IndexConfig,
        kind: IndexKind,
        track: Track = silent,
    ) -> HnswEngine:
        """Build the graph over ``vectors[rows]``."""
        dim = vectors.shape[1]
        if kind == "hnsw_sq8":
            index: Any = faiss.IndexHNSWSQ(
                dim, faiss.ScalarQuantizer.QT_8bit, config.m, faiss.METRIC_INNER_PRODUCT
            )
            sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), SQ8_SAMPLE)).astype(np.int64)]
            index.train(np.ascontiguousarray(vectors[sample]))
        else:
            index = faiss.IndexHNSWFlat(dim, config.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.ef_construction
        storage = faiss.downcast_index(index.storage)
        reserve(storage.codes, len(rows) * storage.code_size)
        reserve(index.hnsw.neighbors, len(rows) * (2 * config.m + 2))
        for block in blocks(vectors, rows, track):
            index.add(block)
        beam = beam_for(len(rows)) if config.ef_search is None else config.ef_search
        parameters: dict[str, int | float] = {
            "m": config.m,
            "ef_construction": config.ef_construction,
            "ef_search": beam,
        }
        return cls(index, kind, parameters)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: NodeBits | None = None
    ) -> Proposed:
        """The nodes that a beam of ``max(fetch, effort * ef_search)`` finds among those allowed."""
        beam = max(fetch, self._beam(effort))
        if allowed is None:
            parameters = self._by_beam.get(beam)
            if parameters is None:
                parameters = self._by_beam[beam] = faiss.SearchParametersHNSW(efSearch=beam)
            return searched(self._index, queries, fetch, params=parameters)
        parameters = faiss.SearchParametersHNSW(efSearch=beam, sel=faiss.IDSelectorBitmap(allowed))
        return searched(self._index, queries, fetch, params=parameters)

    @property
    def looks(self) -> list[float]:
        """Efforts of short looks, beams of 4, 16, 64, ...: a wider beam visits all that a narrow one does.

        Of 1,000,000 nodes these leave 39, 6 and 0.05 % to the next, of 100,000 nodes 3, 0.02 % and none.
        """
        beam = self.parameters["ef_search"]
        return [4**power / beam for power in range(1, math.ceil(math.log(beam, 4)))]

    def worth(self, effort: float) -> int:
        """So many rows take as long as a beam's steps."""
        return self._beam(effort) * ROWS_PER_STEP

    def _beam(self, effort: float) -> int:
        return min(len(self), round(self.parameters["ef_search"] * effort))

    def link(self, nodes: RowIndices, near: RowIndices) -> None:
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
