"""LanceDB in process: a table with IVF_HNSW_SQ and scalar indexes, candidates scored again with float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.dataset import Condition
from benchmarks.peers.engine import Engine, Hit, list_hits

REFINE = 2


class Lance(Engine):
    """One query at a time: batches are lists of queries, as its API takes them."""

    in_process: ClassVar[bool] = True

    def read_version(self) -> str:
        import lancedb

        return f"lancedb {lancedb.__version__}"

    def build(self) -> None:
        import lancedb

        table = lancedb.connect(self.folder).create_table(
            "items", self._write_rows(range(len(self.data.rows)))
        )
        table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1)
        table.create_scalar_index("row")
        table.create_scalar_index("label")
        table.create_scalar_index("value")

    def _write_rows(self, rows: Sequence[int], vectors: np.ndarray | None = None) -> Any:
        import pyarrow as pa

        chosen = np.asarray(rows)
        values = np.ravel(self.data.rows[chosen] if vectors is None else vectors)
        return pa.table(
            {
                "row": chosen,
                "label": self.data.labels[chosen],
                "value": self.data.values[chosen],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(values), self.data.dim),
            }
        )

    def start(self) -> None:
        import lancedb

        self._table = lancedb.connect(self.folder).open_table("items")
        self._effort = self.efforts[0]

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        columns = ["row", "_distance", *(["label"] if labels else [])]
        found = (
            self._table.search(queries if len(queries) > 1 else queries[0])
            .distance_type("dot")
            .ef(max(self._effort, REFINE * k))
            .refine_factor(REFINE)
            .limit(k)
            .select(columns)
        )
        if condition is not None:
            found = found.where(_write_filter(condition), prefilter=True)
        answer = found.to_arrow().to_pydict()
        hits = list_hits(answer["row"], (1 - np.array(answer["_distance"])).tolist(), answer.get("label"))
        if len(queries) == 1:
            return [hits]
        by_query: list[list[Hit]] = [[] for _ in queries]
        for query, hit in zip(answer["query_index"], hits, strict=True):
            by_query[query].append(hit)
        return by_query

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        self._table.merge_insert("row").when_matched_update_all().when_not_matched_insert_all().execute(
            self._write_rows(rows, vectors)
        )


def _write_filter(condition: Condition) -> str:
    if "label" in condition:
        return f"label = '{condition['label']}'"
    low, high = condition["value"]
    return f"value >= {low} AND value < {high}"
