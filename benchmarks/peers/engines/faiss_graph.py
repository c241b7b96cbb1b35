"""FAISS in process, the limit: the graph that Limen builds, with nothing around it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.dataset import Condition
from benchmarks.peers.engine import Engine, Hit, list_hits

M, EF_CONSTRUCTION = 32, 200  # Limen's defaults


class FaissGraph(Engine):
    """Rows alone: no ids, labels, filters or writes; each client is a thread."""

    in_process: ClassVar[bool] = True

    def read_version(self) -> str:
        return f"faiss-cpu {version('faiss-cpu')}"

    def build(self) -> None:
        import faiss

        index = faiss.IndexHNSWFlat(self.data.dim, M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.add(self.data.rows)
        faiss.write_index(index, str(self.folder / "index.faiss"))

    def start(self) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index: Any = faiss.read_index(str(self.folder / "index.faiss"))

    def set_effort(self, effort: int) -> None:
        self._index.hnsw.efSearch = effort

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        similarities, rows = self._index.search(queries, k)
        names = [self.data.labels[each] for each in rows] if labels else [None] * len(rows)
        return [list_hits(*each) for each in zip(rows.tolist(), similarities.tolist(), names, strict=True)]
