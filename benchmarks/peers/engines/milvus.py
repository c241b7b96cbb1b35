"""Milvus by milvus-lite's server, asked over gRPC by its Python client."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.dataset import Condition, Dataset
from benchmarks.peers.engine import Engine, Hit, list_hits
from benchmarks.peers.server_process import ServerProcess, find_free_port

BATCH = 2_000


class Milvus(Engine):
    """Each client is a thread; they share one connection, as the Python client is meant to be used."""

    def __init__(self, folder: Path, data: Dataset) -> None:
        super().__init__(folder, data)
        self._port = find_free_port()
        self._server: ServerProcess | None = None
        self._effort = self.efforts[0]
        self._connected: Any = None

    def read_version(self) -> str:
        return f"milvus-lite {version('milvus-lite')}, pymilvus {version('pymilvus')}"

    @property
    def _client(self) -> Any:
        from pymilvus import MilvusClient

        if self._connected is None:
            self._connected = MilvusClient(f"http://127.0.0.1:{self._port}", timeout=60)
        return self._connected

    def _run(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--data-dir", str(self.folder / "data")]
        self._server = ServerProcess(command, self._port, self.folder / "log")

    def build(self) -> None:
        from pymilvus import DataType, MilvusClient

        self._run()
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("label", DataType.VARCHAR, max_length=64)
        schema.add_field("value", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.data.dim)
        self._client.create_collection("items", schema=schema)
        for start in range(0, len(self.data.rows), BATCH):
            rows = range(start, min(start + BATCH, len(self.data.rows)))
            self._client.insert("items", self._write_rows(rows, self.data.rows[start:]))
        self._client.flush("items")
        index = MilvusClient.prepare_index_params()
        index.add_index(
            "vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200}
        )
        self._client.create_index("items", index)
        self._client.load_collection("items")
        self.stop()

    def _write_rows(self, rows: Sequence[int], vectors: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "row": int(row),
                "label": str(self.data.labels[row]),
                "value": int(self.data.values[row]),
                "vector": vector,
            }
            for row, vector in zip(rows, vectors, strict=False)
        ]

    def start(self) -> None:
        self._run()
        self._client.load_collection("items")

    def stop(self) -> None:
        if self._connected is not None:
            self._connected.close()
            self._connected = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        found = self._client.search(
            "items",
            queries,
            filter="" if condition is None else _write_filter(condition),
            limit=k,
            output_fields=["label"] if labels else None,
            search_params={"metric_type": "IP", "params": {"ef": max(self._effort, k)}},
        )
        return [
            list_hits(
                [hit["row"] for hit in hits],
                [hit["distance"] for hit in hits],
                [hit["entity"]["label"] for hit in hits] if labels else None,
            )
            for hits in found
        ]

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        self._client.upsert("items", self._write_rows(rows, vectors))

    def list_processes(self) -> list[int]:
        assert self._server is not None
        return self._server.list_processes()


def _write_filter(condition: Condition) -> str:
    if "label" in condition:
        return f'label == "{condition["label"]}"'
    low, high = condition["value"]
    return f"value >= {low} and value < {high}"
