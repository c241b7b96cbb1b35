"""HNSW graphs; ``efSearch`` is passed with every search: FAISS falls back to 16 when it is not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import GRAPH_FILE, INDEX_FILE, EffortRecall, IndexDescription, IndexKind
from common.array_types import RowIndices, UnitVectors
from common.errors import BundleError
from common.progress import Track
from index.engines.engine import (
    AllowedNodes,
    Candidates,
    FaissEngine,
    NodeSource,
    iterate_blocks,
    reserve,
    search_faiss,
)
from index.engines.graph_file import Graph, view_array
from index.engines.sampled_recall import (
    SAMPLE,
    NearestNodes,
    compute_recall,
    require_on_sample,
    spread_positions,
)

BEAM = 128  # ef_search up to so many nodes, where it is not measured
BEAM_UP_TO = 200_000
NARROWEST, WIDEST, STEPS = 16, 4_096, 33  # beams that are tried, four an octave
MEASURED_UP_TO = 0.995  # recall up to which wider beams are measured, for who asks for more when serving
MEASURED_FROM = 4 * SAMPLE  # nodes; of fewer, a beam of 128 is a good part
SQ8_SAMPLE = 100_000  # rows the ranges of the 8 bits are taken from
ROWS_PER_STEP = 115  # rows compared in the time of one step of a beam: 29 ns against 3.3 us at 128 numbers
NODE_BYTES = 16  # level, offset and the links of the upper layers, on average


class HnswEngine(FaissEngine):
    """A navigable small-world graph (arXiv 1603.09320) over float32 rows.

    Its file holds links alone: the vectors are those of the generation, under the number of their row.
    Without ``index.ef_search`` the build takes the narrowest beam with a recall of ``index.recall``, measured
    on 512 rows before the graph holds them.
    """

    kind: ClassVar[IndexKind] = "hnsw"
    file = GRAPH_FILE
    older_file = INDEX_FILE
    faiss_type = faiss.IndexHNSWFlat  # of the older file
    required_parameters = frozenset({"m", "ef_construction", "ef_search"})
    effort_parameter = "ef_search"
    bytes_per_number: ClassVar[int] = 4
    min_candidates = 16
    similarity_error = 1e-3  # what 8 bits a number may hide between two similarities
    has_links = True

    def __init__(
        self,
        index: Any,
        parameters: dict[str, int | float],
        node_of_id: RowIndices | None = None,
    ) -> None:
        super().__init__(index, parameters)
        self._node_of_id = node_of_id  # of each number that FAISS knows; the same if None
        self._n_nodes = int(index.ntotal)
        self._row_of_id, self._n_rows = np.empty(0, dtype=np.int64), 0  # once it is built
        self._kept: tuple[object, ...] = ()  # what FAISS reads and does not keep alive
        self._params_by_beam: dict[int, Any] = {}  # making one takes as long as a tenth of a search

    @classmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        n, order, held = len(rows), None, np.empty(0, dtype=np.int64)
        if config.ef_search is None and n >= MEASURED_FROM:
            held = spread_positions(n, SAMPLE)
            order = np.concatenate([np.delete(np.arange(n), held), held])
        numbered = rows if order is None else rows[order]
        index = cls._create_index(vectors, rows, config.m)
        index.hnsw.efConstruction = config.ef_construction
        storage = faiss.downcast_index(index.storage)
        reserve(storage.codes, n * storage.code_size)
        reserve(index.hnsw.neighbors, n * (2 * config.m + 2))
        nearest = NearestNodes(np.ascontiguousarray(vectors[rows[held]]))
        for block in iterate_blocks(vectors, numbered[: n - len(held)], track):
            index.add(block)
            if len(held):
                nearest.add(block)
        beam = choose_beam(n) if config.ef_search is None else config.ef_search
        engine = cls(index, {"m": config.m, "ef_construction": config.ef_construction, "ef_search": beam})
        if len(held):
            engine._choose_beam(nearest, config.recall, track)
            index.add(nearest.queries)
            engine._node_of_id, engine._n_nodes = order, n
        engine._row_of_id, engine._n_rows = numbered, len(vectors)
        return engine

    def _choose_beam(self, nearest: NearestNodes, recall: float, track: Track) -> None:
        """Take the narrowest beam that reaches the recall, or the widest; what others reach is kept, too."""
        fetch, widest = min(self.min_candidates, len(self)), min(WIDEST, len(self))
        for step in track(range(STEPS), "recall", STEPS):
            beam = min(widest, round(NARROWEST * 2 ** (step / 4)))
            self.parameters["ef_search"] = beam
            reached = compute_recall(nearest.nodes, self.search(nearest.queries, fetch)[1])
            self.measured.append(EffortRecall(effort=beam, recall=round(reached, 4)))
            if beam == widest or reached >= max(MEASURED_UP_TO, require_on_sample(recall)):
                break
        self.parameters["target_recall"] = recall
        self.require_recall(recall)

    @classmethod
    def _create_index(cls, vectors: UnitVectors, rows: RowIndices, m: int) -> Any:
        """An empty FAISS index, trained if need be."""
        return faiss.IndexHNSWFlat(vectors.shape[1], m, faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def open(cls, folder: Path, description: IndexDescription, source: NodeSource) -> Self:
        path = folder / cls.file
        if not path.exists():  # written before links had a file of their own
            return super().open(folder, description, source)
        numbered = cls._count_numbers(source)
        graph, arrays = Graph.open(path, cls.stored_kinds)
        if len(graph.levels) != numbered or any(len(array) != numbered for array in arrays[1:]):
            raise BundleError(f"{path} numbers {len(graph.levels)} vectors, the bundle has {numbered}.")
        storage, read = cls._open_storage(source, arrays)
        index = graph.build_index(storage)
        engine = cls(index, dict(description.parameters), cls._get_node_of_id(source))
        engine._n_nodes = int((graph.levels > 0).sum())
        engine._kept = (graph.links, storage, read)
        return engine

    def save(self, folder: Path) -> None:
        numbers, n = self._number_vectors()
        Graph.read_index(self._index, numbers, n).save(folder / self.file, self._list_stored(numbers))

    # how the vectors are numbered and where they are: here by their rows, and in the generation's own file
    stored_kinds: ClassVar[tuple[type[np.generic], ...]] = ()

    @classmethod
    def _count_numbers(cls, source: NodeSource) -> int:
        return len(source.vectors)

    @classmethod
    def _get_node_of_id(cls, source: NodeSource) -> RowIndices | None:
        return source.node_of_row

    @classmethod
    def _open_storage(cls, source: NodeSource, arrays: list[NDArray[Any]]) -> tuple[Any, NDArray[Any]]:
        rows = np.ascontiguousarray(source.vectors)  # a copy only where the file is written by columns
        storage = faiss.IndexFlatIP(rows.shape[1])
        view_array(storage.codes, rows.reshape(-1).view(np.uint8))
        storage.ntotal = len(rows)
        return storage, rows

    def _number_vectors(self) -> tuple[RowIndices, int]:
        """The number of each vector that FAISS knows, and of how many."""
        return self._row_of_id, self._n_rows

    def _list_stored(self, numbers: RowIndices) -> list[NDArray[Any]]:
        return []

    @classmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Rows, and ``m`` links a node, twice that at the bottom."""
        return nodes * (cls.bytes_per_number * dim + 2 * config.m * 4 + NODE_BYTES)

    @classmethod
    def estimate_file_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Links at most; the rows are the generation's."""
        return cls.estimate_held_bytes(nodes, 0, config)

    @classmethod
    def select_requested_parameters(
        cls, parameters: dict[str, int | float], nodes: int
    ) -> dict[str, int | float]:
        """Without an ``ef_search`` that followed from the number of nodes, where it was not measured."""
        requested = super().select_requested_parameters(parameters, nodes)
        if requested.get("ef_search") == choose_beam(nodes):
            del requested["ef_search"]
        return requested

    def __len__(self) -> int:
        return self._n_nodes

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The nodes that a beam of ``max(fetch, effort * ef_search)`` finds among those allowed."""
        beam = max(fetch, self._compute_beam(effort))
        if allowed is not None:
            params = faiss.SearchParametersHNSW(efSearch=beam, sel=self._select(allowed))
        elif (params := self._params_by_beam.get(beam)) is None:
            params = self._params_by_beam[beam] = faiss.SearchParametersHNSW(efSearch=beam)
        similarities, ids = search_faiss(self._index, queries, fetch, params)
        if self._node_of_id is not None:
            ids = np.where(ids < 0, -1, self._node_of_id[ids])
        return similarities, ids

    def _select(self, allowed: AllowedNodes) -> Any:
        bits = allowed.bits
        if self._node_of_id is not None:
            bits = np.packbits(allowed.nodes[self._node_of_id], bitorder="little")
        return faiss.IDSelectorBitmap(bits)

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
        if self._node_of_id is not None:
            id_of_node = np.argsort(self._node_of_id)
            nodes, near = id_of_node[nodes], np.where(near < 0, -1, id_of_node[near])
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
    """The same graph over 8 bits a number, which lie in its file under the number of their node."""

    kind: ClassVar[IndexKind] = "hnsw_sq8"
    faiss_type = faiss.IndexHNSWSQ
    is_compressed = True
    stored_kinds = (np.float32, np.uint8)  # the ranges of the 8 bits [2 d], the codes [nodes, d]
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
    def estimate_file_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        return cls.estimate_held_bytes(nodes, dim, config)

    @classmethod
    def _count_numbers(cls, source: NodeSource) -> int:
        return len(source.firsts)

    @classmethod
    def _get_node_of_id(cls, source: NodeSource) -> RowIndices | None:
        return None

    @classmethod
    def _open_storage(cls, source: NodeSource, arrays: list[NDArray[Any]]) -> tuple[Any, NDArray[Any]]:
        (ranges, codes), dim = arrays, source.vectors.shape[1]
        storage = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        if ranges.shape != (2 * dim,) or codes.shape[1:] != (storage.code_size,):
            raise BundleError(f"{GRAPH_FILE} holds codes of other than {dim} numbers.")
        faiss.copy_array_to_vector(ranges, storage.sq.trained)
        view_array(storage.codes, codes.reshape(-1))
        storage.ntotal, storage.is_trained = len(codes), True
        return storage, codes

    def _number_vectors(self) -> tuple[RowIndices, int]:
        n = len(self)
        return np.arange(n) if self._node_of_id is None else self._node_of_id, n

    def _list_stored(self, numbers: RowIndices) -> list[NDArray[Any]]:
        storage = faiss.downcast_index(self._index.storage)
        of_ids = faiss.rev_swig_ptr(storage.codes.data(), storage.codes.size()).reshape(len(self), -1)
        codes = np.empty_like(of_ids)
        codes[numbers] = of_ids
        return [faiss.vector_to_array(storage.sq.trained), codes]

    @classmethod
    def estimate_training_bytes(cls, nodes: int, dim: int) -> int:
        return 4 * dim * min(nodes, SQ8_SAMPLE)


def choose_beam(nodes: int) -> int:
    """``ef_search`` where none is configured: what recall@10 of 0.95 takes grows with the set.

    Measured with m = 32, ef_construction = 200 on rows around many centres in 128 dimensions: 16 at
    100,000 and 256 at 1,000,000.
    """
    return max(BEAM, 32 * round(BEAM / 32 * math.sqrt(nodes / BEAM_UP_TO)))
