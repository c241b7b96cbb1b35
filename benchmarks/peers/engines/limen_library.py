"""Limen's gallery in process, beside engines that are a library."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import ClassVar

import numpy as np

from benchmarks.peers.dataset import Condition, K
from benchmarks.peers.decision import Decision
from benchmarks.peers.engine import Engine, Hit
from benchmarks.peers.engines.limen_service import write_bundle, write_filter


class LimenLibrary(Engine):
    """The gallery of a bundle with an index of recall 0.95."""

    in_process: ClassVar[bool] = True
    efforts: ClassVar[Sequence[int]] = (0,)  # the build has chosen

    def read_version(self) -> str:
        return f"limen {version('limen')}"

    def build(self) -> None:
        write_bundle(self.folder, self.data)

    def start(self) -> None:
        import faiss

        from index.gallery.gallery import Gallery

        faiss.omp_set_num_threads(1)
        self._gallery = Gallery.open(self.folder / "bundle")

    def set_effort(self, effort: int) -> None:
        """Nothing: the build has chosen."""

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        found = self._gallery.search(
            queries, k, min_score=-1.0, filter=None if condition is None else write_filter(condition)
        )
        return [[(int(hit.id), hit.similarity, hit.label) for hit in hits] for hits in found]

    def decide(self, query: np.ndarray) -> Decision:
        result = self._gallery.match(query[None], k=K)[0]
        return {name: getattr(result, name) for name in Decision.__annotations__}  # type: ignore[return-value]
