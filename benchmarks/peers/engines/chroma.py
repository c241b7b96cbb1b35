"""Chroma's server: ``chroma run``, one collection with an HNSW index, asked over its HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.client_load import build_json_request
from benchmarks.peers.dataset import Condition
from benchmarks.peers.engine import Hit, list_hits
from benchmarks.peers.http_engine import HttpEngine
from benchmarks.peers.server_process import ServerProcess

BATCH = 5_000


class Chroma(HttpEngine):
    """Searches return ids and distances; decisions ask for metadata as well."""

    efforts: ClassVar[Sequence[int]] = (16, 32, 48, 64, 100, 160, 256, 400)

    def read_version(self) -> str:
        import chromadb

        return f"chromadb {chromadb.__version__}"

    def _run(self) -> None:
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(self.folder / "data")]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.server = ServerProcess(command, self.port, self.folder / "log")

    def _connect(self) -> Any:
        import chromadb

        return chromadb.HttpClient(
            "127.0.0.1", self.port, settings=chromadb.Settings(anonymized_telemetry=False)
        )

    def build(self) -> None:
        self._run()
        collection = self._connect().create_collection(
            "items", configuration={"hnsw": {"space": "ip"}}, embedding_function=None
        )
        for start in range(0, len(self.data.rows), BATCH):
            self._add(
                collection.add, range(start, min(start + BATCH, len(self.data.rows))), self.data.rows[start:]
            )
        self.stop()

    def _add(self, write: Any, rows: Sequence[int], vectors: np.ndarray) -> None:
        write(
            ids=[str(row) for row in rows],
            embeddings=vectors[: len(rows)],
            metadatas=[
                {"label": str(self.data.labels[row]), "value": int(self.data.values[row])} for row in rows
            ],
        )

    def start(self) -> None:
        self._run()
        collection = self._connect().get_collection("items", embedding_function=None)
        self._collection = collection
        root = "/api/v2/tenants/default_tenant/databases/default_database/collections"
        self._path = f"{root}/{collection.id}/query"

    def set_effort(self, effort: int) -> None:
        """An open index keeps its width, so the server starts again."""
        if self._collection.configuration["hnsw"]["ef_search"] != effort:
            self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
            self.stop()
            self.start()

    def build_search(self, queries: np.ndarray, k: int, condition: Condition | None, labels: bool) -> bytes:
        body: dict[str, Any] = {
            "query_embeddings": queries.tolist(),
            "n_results": k,
            "include": ["distances", "metadatas"] if labels else ["distances"],
        }
        if condition is not None:
            body["where"] = _write_filter(condition)
        return build_json_request(self._path, body)

    def read_hits(self, answer: Any) -> list[list[Hit]]:
        labels = answer.get("metadatas") or [None] * len(answer["ids"])
        return [
            list_hits(
                ids,
                [1 - distance for distance in distances],
                names and [name["label"] for name in names],
            )
            for ids, distances, names in zip(answer["ids"], answer["distances"], labels, strict=True)
        ]

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        self._add(self._collection.upsert, rows, vectors)


def _write_filter(condition: Condition) -> dict[str, Any]:
    if "label" in condition:
        return {"label": condition["label"]}
    low, high = condition["value"]
    return {"$and": [{"value": {"$gte": low}}, {"value": {"$lt": high}}]}
