"""Qdrant's edge engine in process: one shard with HNSW, indexed fields, optimized after it was filled."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.dataset import Condition
from benchmarks.peers.engine import Engine, Hit

BATCH = 5_000


class Edge(Engine):
    """Searches return ids and scores; decisions ask for the label as well."""

    in_process: ClassVar[bool] = True

    def read_version(self) -> str:
        return f"qdrant-edge-py {version('qdrant-edge-py')}"

    def build(self) -> None:
        import qdrant_edge as qdrant

        folder = self.folder / "shard"
        folder.mkdir()
        vectors = qdrant.EdgeVectorParams(size=self.data.dim, distance=qdrant.Distance.Dot)
        graph = qdrant.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
        config = qdrant.EdgeConfig(vectors=vectors, hnsw_config=graph)
        self._shard = qdrant.EdgeShard.create(str(folder), config)
        for field, kind in (("label", "Keyword"), ("value", "Integer")):
            schema = getattr(qdrant.PayloadSchemaType, kind)
            self._shard.update(qdrant.UpdateOperation.create_field_index(field, schema))
        for start in range(0, len(self.data.rows), BATCH):
            rows = range(start, min(start + BATCH, len(self.data.rows)))
            self.upsert(rows, self.data.rows[start:])
        self._shard.optimize()
        self._shard.flush()
        self.stop()

    def start(self) -> None:
        import qdrant_edge as qdrant

        self._shard = qdrant.EdgeShard.load(str(self.folder / "shard"))
        self._effort = self.efforts[0]

    def stop(self) -> None:
        if hasattr(self, "_shard"):
            self._shard.close()
            del self._shard

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        import qdrant_edge as qdrant

        chosen = None if condition is None else _build_filter(qdrant, condition)
        return [
            [
                (hit.id, hit.score, hit.payload["label"] if labels else "")
                for hit in self._shard.query(
                    qdrant.QueryRequest(
                        limit=k,
                        query=qdrant.Query.Nearest(query.tolist()),
                        filter=chosen,
                        params=qdrant.SearchParams(hnsw_ef=self._effort),
                        with_payload=labels,
                    )
                )
            ]
            for query in queries
        ]

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        import qdrant_edge as qdrant

        points = [
            qdrant.Point(
                int(row),
                vector.tolist(),
                {"label": str(self.data.labels[row]), "value": int(self.data.values[row])},
            )
            for row, vector in zip(rows, vectors, strict=False)
        ]
        self._shard.update(qdrant.UpdateOperation.upsert_points(points))


def _build_filter(qdrant: Any, condition: Condition) -> Any:
    if "label" in condition:
        field = qdrant.FieldCondition("label", match=qdrant.MatchValue(condition["label"]))
    else:
        low, high = condition["value"]
        field = qdrant.FieldCondition("value", range=qdrant.RangeFloat(gte=low, lt=high))
    return qdrant.Filter(must=[field])
