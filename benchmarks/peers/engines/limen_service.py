"""``limen serve``: a bundle with an index of recall 0.95, and a data folder so that it takes writes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.client_load import Load, build_json_request, measure_http
from benchmarks.peers.dataset import Condition, K
from benchmarks.peers.decision import Decision
from benchmarks.peers.engine import Hit
from benchmarks.peers.http_clients import Connection
from benchmarks.peers.http_engine import HttpEngine
from benchmarks.peers.server_process import ServerProcess
from benchmarks.wire import build_request

RECALL = 0.95
QUEUES = {  # peers queue what they cannot answer at once; with these Limen does so instead of refusing
    "LIMEN_MAX_INFLIGHT": "512",
    "LIMEN_MAX_INFLIGHT_PER_CLIENT": "512",
    "LIMEN_MAX_WAIT": "10",
    "LIMEN_MAX_TURN": "10",
}


def write_bundle(folder: Path, data: Any, recall: float = RECALL) -> None:
    """The bundle that service and library open."""
    from api_schemas.build_config import IndexConfig
    from benchmarks.bundles import write_matching_bundle
    from embeddings.embedding_set import EmbeddingSet

    ids = np.arange(len(data.rows)).astype(np.str_)
    items = EmbeddingSet(data.rows, data.labels, ids, {"value": data.values})
    index = IndexConfig(kind="hnsw", recall=recall)
    write_matching_bundle(folder / "bundle", items, index, classes=100, fpir=0.05)


class LimenService(HttpEngine):
    """JSON both ways; the beam is what the build measured for a recall of 0.95."""

    efforts: ClassVar[Sequence[int]] = (0,)  # the build has chosen
    workers: ClassVar[int] = 1

    def read_version(self) -> str:
        return f"limen {version('limen')}"

    def build(self) -> None:
        write_bundle(self.folder, self.data)

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "limen"), "serve", str(self.folder / "bundle")]
        command += ["--port", str(self.port), "--workers", str(self.workers)]
        if self.workers == 1:
            command += ["--data", str(self.folder / f"data-{type(self).__name__}")]
        self.server = ServerProcess(
            command, self.port, self.folder / "log", environment=QUEUES, cwd=self.folder
        )
        while True:  # it listens before it is ready
            try:
                self.ask(build_request("GET", "/readyz"))
                return
            except (RuntimeError, ConnectionError):
                self._forget_connection()
                time.sleep(0.01)

    def set_effort(self, effort: int) -> None:
        """Nothing: the build has chosen."""

    def build_search(self, queries: np.ndarray, k: int, condition: Condition | None, labels: bool) -> bytes:
        return build_json_request("/v1/search", _write_body(queries, k, condition))

    def read_hits(self, answer: Any) -> list[list[Hit]]:
        return [
            [(int(hit["id"]), hit["similarity"], hit["label"]) for hit in result["hits"]]
            for result in answer["results"]
        ]

    def decide(self, query: np.ndarray) -> Decision:
        result = self.ask(build_json_request("/v1/match", _write_body(query[None], K, None)))["results"][0]
        return {name: result[name] for name in Decision.__annotations__}  # type: ignore[return-value]

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        items = [
            {
                "id": str(row),
                "label": str(self.data.labels[row]),
                "vector": vector.tolist(),
                "metadata": {"value": int(self.data.values[row])},
            }
            for row, vector in zip(rows, vectors, strict=False)
        ]
        request = build_json_request("/v1/items", {"items": items}, "PUT")
        try:
            self._writes.ask(request)
        except (AttributeError, ConnectionError):  # none yet, or closed for idleness
            self._writes = Connection(self.port)
            self._writes.ask(request)

    def measure_empty(self, seconds: float) -> Load:
        """One client at an endpoint that does nothing."""
        return measure_http([build_request("GET", "/livez")], self.port, 1, seconds)

    def read_beam(self) -> int:
        """The beam that the build chose."""
        manifest = json.loads((self.folder / "bundle" / "manifest.json").read_text())
        return int(manifest["index"]["parameters"]["ef_search"])

    def tune(self) -> dict[str, float]:
        return {"effort": self.read_beam(), "recall": self.measure_recall()}


class LimenWorkers(LimenService):
    """The same in two processes, which only answer."""

    workers: ClassVar[int] = 2


class LimenRaw(LimenService):
    """Queries as float32 bytes; answers as JSON."""

    def build_search(self, queries: np.ndarray, k: int, condition: Condition | None, labels: bool) -> bytes:
        if condition is not None:
            return super().build_search(queries, k, condition, labels)
        return build_request("POST", f"/v1/search?k={k}", np.ascontiguousarray(queries).tobytes())


def _write_body(queries: np.ndarray, k: int, condition: Condition | None) -> dict[str, Any]:
    body: dict[str, Any] = {"queries": [{"vector": query} for query in queries.tolist()], "k": k}
    if condition is not None:
        body["filter"] = write_filter(condition)
    return body


def write_filter(condition: Condition) -> dict[str, Any]:
    """The condition in the form of Limen's filters."""
    if "label" in condition:
        return {"label": condition["label"]}
    low, high = condition["value"]
    return {"value": {"$gte": low, "$lt": high}}
