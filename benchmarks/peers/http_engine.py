"""Engines that are asked over HTTP."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers.client_load import Load, measure_http
from benchmarks.peers.dataset import Condition, Dataset, K
from benchmarks.peers.engine import Engine, Hit
from benchmarks.peers.http_clients import Connection
from benchmarks.peers.server_process import ServerProcess, find_free_port


class HttpEngine(Engine):
    """An engine whose searches are prepared requests, and whose answers are JSON."""

    def __init__(self, folder: Any, data: Dataset) -> None:
        super().__init__(folder, data)
        self.port = find_free_port()
        self.server: ServerProcess | None = None
        self._connection: Connection | None = None

    @abstractmethod
    def build_search(self, queries: np.ndarray, k: int, condition: Condition | None, labels: bool) -> bytes:
        """A whole request."""

    @abstractmethod
    def read_hits(self, answer: Any) -> list[list[Hit]]:
        """The hits of a parsed answer."""

    def ask(self, request: bytes) -> Any:
        """A parsed answer, over one kept connection: a new one where the server closed it for idleness."""
        try:
            return self._ask_once(request)
        except ConnectionError:
            self._forget_connection()
            return self._ask_once(request)

    def _ask_once(self, request: bytes) -> Any:
        if self._connection is None:
            self._connection = Connection(self.port)
        return json.loads(self._connection.ask(request) or b"null")

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        return self.read_hits(self.ask(self.build_search(queries, k, condition, labels)))

    def measure_search(
        self, clients: int, batch: int, seconds: float, conditions: Sequence[Condition] = ()
    ) -> Load:
        queries = self.data.queries
        requests = [
            self.build_search(queries[start : start + batch], K, condition, False)
            for start, condition in zip(
                range(0, len(queries) - batch + 1, batch), conditions or [None] * len(queries), strict=False
            )
        ]
        return measure_http(requests, self.port, clients, seconds)

    def list_processes(self) -> list[int]:
        assert self.server is not None
        return self.server.list_processes()

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self) -> None:
        self._forget_connection()
        if self.server is not None:
            self.server.stop()
            self.server = None
