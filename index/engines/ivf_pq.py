"""IVF-PQ: cells of rows kept in 4 bits for two numbers, for sets whose graph is too large or slow to build.

Inverted lists of product-quantised residuals (Jégou et al. 2011), scanned in registers (arXiv 1704.07355).
At a million rows it is built in a fourteenth of a graph's time and takes a ninth of the memory of `hnsw_sq8`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import faiss
import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.array_types import RowIndices, UnitVectors
from common.progress import Track
from index.engines.engine import AllowedNodes, Candidates, FaissEngine, iterate_blocks, search_faiss
from index.engines.sampled_recall import (
    NEIGHBOURS,
    SAMPLE,
    NearestNodes,
    compute_recall,
    require_on_sample,
    spread_positions,
)

SAMPLE_PER_CELL = 40
CLUSTERING_ROUNDS = 6
CODES = 16  # of 4 bits
PROBED_NODES = 1_000  # around a query, among which near ties that could hide a node show
SCANNED_PER_ROW = 3  # nodes scanned, each checked against the filter, in the time that one row takes
ID_BYTES = 8  # of a row in a cell
SPARE_CODES = 16  # of a cell, on average: it has room for a multiple of 32


class IvfPqEngine(FaissEngine):
    """Scans the ``nprobe`` cells nearest to a query, of ``cells``.

    Without ``index.nprobe`` the build takes as few as find 0.96 of the ten nearest of 512 of its own rows,
    which the cells were not trained on, and says in ``parameters["recall"]`` what it measured.
    """

    kind: ClassVar[IndexKind] = "ivf_pq"
    faiss_type = faiss.IndexIVFPQFastScan
    required_parameters = frozenset({"cells", "nprobe"})
    effort_parameter = "nprobe"
    is_compressed = True
    min_candidates = 200  # 4 bits for two numbers leave many near neighbours in a wrong order
    candidates_per_result = 4
    similarity_error = 0.1

    @classmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        """Train on a sample of ``vectors[rows]``, then add them all, block by block."""
        cells, dim = count_cells(len(rows)), vectors.shape[1]
        coarse = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQFastScan(coarse, dim, cells, count_codes(dim), 4, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = True
        index.cp.niter = CLUSTERING_ROUNDS
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        tuned_on = spread_positions(len(rows), min(len(rows), SAMPLE))
        others = rows if len(rows) < 2 * SAMPLE else np.delete(rows, tuned_on)
        sample = others[spread_positions(len(others), max(CODES, min(len(others), SAMPLE_PER_CELL * cells)))]
        index.train(np.ascontiguousarray(vectors[sample]))
        nearest = NearestNodes(np.ascontiguousarray(vectors[rows[tuned_on]]), NEIGHBOURS + 1)
        for block in iterate_blocks(vectors, rows, track):
            index.add(block)
            if config.nprobe is None:
                nearest.add(block)
        engine = cls(index, {"cells": cells, "nprobe": min(config.nprobe or cells, cells)})
        if config.nprobe is None:
            engine._tune(nearest, tuned_on, config.recall)
        return engine

    @classmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        """Codes and ids of the rows, and the cells with their centres."""
        codes = -(-count_codes(dim) // 2)
        return nodes * (codes + ID_BYTES) + count_cells(nodes) * (4 * dim + SPARE_CODES * codes)

    @classmethod
    def estimate_training_bytes(cls, nodes: int, dim: int) -> int:
        """A sample of float32 rows, and what is left of them beside the centres of their cells."""
        return 2 * 4 * dim * min(nodes, SAMPLE_PER_CELL * count_cells(nodes))

    def _tune(self, nearest: NearestNodes, own: RowIndices, recall: float) -> None:
        """Bisect for the fewest cells; recall grows with their number."""
        expected, required = nearest.drop_own(own), require_on_sample(recall)

        def measure_recall(nprobe: int) -> float:
            self.parameters["nprobe"] = nprobe
            nodes = self.search(nearest.queries, min(self.min_candidates, len(self)))[1]
            return compute_recall(expected, nodes)

        low, high = 1, int(self.parameters["cells"])
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if measure_recall(middle) >= required else (middle + 1, high)
        self.parameters |= {"recall": round(measure_recall(high), 4), "target_recall": recall}

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The best of the ``effort * nprobe`` nearest cells among those allowed, at least of one.

        Nodes as unlike the query as codes can tell are left out even where fewer than ``fetch`` are found.
        """
        selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bits)
        params = faiss.SearchParametersIVF(nprobe=self._count_probed_cells(effort), sel=selector)
        return search_faiss(self._index, queries, fetch, params)

    @property
    def probe_efforts(self) -> list[float]:
        """The effort of so many cells that about ``PROBED_NODES`` nodes are scanned."""
        effort = PROBED_NODES / len(self) * self.parameters["cells"] / self.parameters["nprobe"]
        return [effort] if effort < 1 else []

    def count_comparable_rows(self, effort: float) -> int:
        """The nodes of the cells probed, at what a scanned node costs."""
        return int(len(self) * self._count_probed_cells(effort) / self.parameters["cells"]) // SCANNED_PER_ROW

    def _count_probed_cells(self, effort: float) -> int:
        return int(min(self.parameters["cells"], max(1, self.parameters["nprobe"] * effort)))


def count_cells(nodes: int) -> int:
    """Cells for so many nodes: neither finding the near ones nor scanning them takes most of the time."""
    return max(1, min(nodes, 4 * math.isqrt(nodes)))


def count_codes(dim: int) -> int:
    """Codes of 4 bits a row: one for two numbers, or one for each where their count is odd."""
    return dim // 2 if dim % 2 == 0 else dim
