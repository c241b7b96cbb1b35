"""Milvus as an engine: its collection is filled when a generation is first opened, and then only read."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from api_schemas.base import Schema
from api_schemas.build_config import IndexConfig
from api_schemas.manifest import COLLECTION_FILE, IndexDescription, IndexKind
from common.array_types import Bools, RowIndices, UnitVectors
from common.errors import BundleError, InputError
from common.progress import Track
from index.engines.engine import AllowedNodes, BuiltEngine, Candidates, EngineUnavailable, NodeSource
from index.engines.hnsw import HnswEngine, choose_beam
from index.engines.milvus.collection import MOST_RESULTS, Collection, name_collection
from index.engines.milvus.expressions import compile_filter
from index.engines.milvus.server import Refused, get_server
from index.engines.self_recall import audit_self_recall

LOGGER = logging.getLogger("limen.index")
FLAT_UP_TO = 20_000  # nodes that Milvus compares with all; a graph beyond
QUERIES_AT_ONCE = 100  # the time limit is that of so many
WIDEST_BEAM = 4_096


class CollectionRecord(Schema):
    """``collection.json``: what makes the name of a generation's collection its own."""

    key: str


class MilvusEngine(BuiltEngine):
    """Proposes what a collection of Milvus finds.

    ``build`` only chooses parameters: the collection is filled from the generation's vectors when it is
    opened on a server that lacks it, and audited there, for the graph is that server's.
    """

    kind: ClassVar[IndexKind] = "milvus"
    file = COLLECTION_FILE
    is_remote = True
    is_automatic = False
    is_compressed = True
    required_parameters = HnswEngine.required_parameters
    min_candidates = 64

    def __init__(
        self,
        key: str,
        nodes: int,
        parameters: dict[str, int | float],
        collection: Collection | None = None,
        times: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(parameters)
        self._key = key
        self._nodes = nodes
        self._opened = collection
        self._times = times

    @classmethod
    def build(cls, vectors: UnitVectors, rows: RowIndices, config: IndexConfig, track: Track) -> Self:
        beam = choose_beam(len(rows)) if config.ef_search is None else config.ef_search
        parameters: dict[str, int | float] = {"m": config.m, "ef_construction": config.ef_construction}
        return cls(secrets.token_hex(8), len(rows), parameters | {"ef_search": beam})

    @classmethod
    def open(cls, folder: Path, description: IndexDescription, source: NodeSource) -> Self:
        """Connect to the generation's collection, which is loaded first where it is not whole.

        Raises EngineUnavailable if the server is away, and BundleError if it cannot hold the collection.
        """
        key, dim = _read_key(folder), source.vectors.shape[1]
        collection = Collection(get_server(), name_collection(source.model_hash, dim, key), dim)
        nodes = len(source.firsts)
        engine = cls(key, nodes, dict(description.parameters), collection, source.times)
        try:
            if not collection.is_whole(nodes):
                engine._fill(source)
            engine.lost = collection.read_lost()
            collection.search(
                source.vectors[:1], 1, {}, compile_filter({"x": {"$exists": False}}, frozenset())
            )
        except Refused as error:
            raise BundleError(
                f"Milvus at {collection.server} cannot hold the index: {error} (code {error.code})."
            ) from None
        return engine

    def _fill(self, source: NodeSource) -> None:
        collection, nodes = self._collection, self._nodes
        index: dict[str, Any] = {"index_type": "FLAT", "params": {}}
        if nodes > FLAT_UP_TO:
            graph = {"M": self.parameters["m"], "efConstruction": self.parameters["ef_construction"]}
            index = {"index_type": "HNSW", "params": graph}
        loaded = collection.fill(source, index)
        audited = type(self)(
            self._key, nodes, self.parameters, Collection(collection.server, loaded, source.vectors.shape[1])
        )
        lost, self.audit = audit_self_recall(audited, source.vectors, source.firsts, source.track)
        collection.publish(loaded, source, lost)

    @classmethod
    def discard(cls, folder: Path, model_hash: str, dim: int) -> None:
        try:
            Collection(get_server(), name_collection(model_hash, dim, _read_key(folder)), dim).drop()
        except Refused as error:
            raise EngineUnavailable(f"Milvus did not remove a collection: {error}.") from None

    def save(self, folder: Path) -> None:
        CollectionRecord(key=self._key).save(folder / self.file)

    @classmethod
    def estimate_held_bytes(cls, nodes: int, dim: int, config: IndexConfig) -> int:
        return 0

    @classmethod
    def select_requested_parameters(
        cls, parameters: dict[str, int | float], nodes: int
    ) -> dict[str, int | float]:
        return HnswEngine.select_requested_parameters(parameters, nodes)

    def __len__(self) -> int:
        return self._nodes

    def check(self) -> None:
        try:
            self._collection.bring_into_memory()
        except Refused as error:
            raise self._build_unavailable(error) from None

    def count_comparable_rows(self, effort: float) -> int:
        """None: what passes a filter is compared here only where it is few anyway."""
        return 0

    def search(
        self, queries: UnitVectors, fetch: int, effort: float = 1.0, allowed: AllowedNodes | None = None
    ) -> Candidates:
        """The nodes that Milvus finds among those allowed.

        The filter goes along as an expression; of what comes back, deleted nodes and those that the
        expression lets pass too many are left out, and more is fetched until there is enough.
        """
        parts = [
            self._search(queries[start : start + QUERIES_AT_ONCE], fetch, effort, allowed)
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([near for near, _ in parts]), np.concatenate([nodes for _, nodes in parts])

    def _search(
        self, queries: UnitVectors, fetch: int, effort: float, allowed: AllowedNodes | None
    ) -> Candidates:
        if allowed is None:
            return self._fetch(queries, fetch, effort, "")
        expression = compile_filter(allowed.condition, self._times)
        limit = fetch
        while True:
            near, nodes = self._fetch(queries, limit, effort, expression)
            passes = (nodes >= 0) & allowed.nodes[nodes]
            is_short = passes.sum(axis=1) < min(fetch, allowed.count)
            if limit >= min(self._nodes, MOST_RESULTS) or not (is_short & (nodes[:, -1] >= 0)).any():
                return _keep_first(near, nodes, passes, fetch)
            limit = min(4 * limit, self._nodes, MOST_RESULTS)

    def _fetch(self, queries: UnitVectors, limit: int, effort: float, expression: str) -> Candidates:
        """The ``limit`` nearest nodes that an expression holds for, -1 past their end."""
        limit = min(limit, MOST_RESULTS)
        beam = max(limit, min(WIDEST_BEAM, round(self.parameters["ef_search"] * effort)))
        near = np.full((len(queries), limit), -np.inf, dtype=np.float32)
        nodes = np.full((len(queries), limit), -1, dtype=np.int64)
        for query, (ids, similarities) in enumerate(self._ask(queries, limit, {"ef": beam}, expression)):
            nodes[query, : len(ids)] = ids
            near[query, : len(ids)] = similarities
        return near, nodes

    def _ask(
        self, queries: UnitVectors, limit: int, parameters: dict[str, Any], expression: str
    ) -> list[tuple[list[int], list[float]]]:
        """Search, once more where the server was started again; nothing for an expression it cannot read."""
        try:
            return self._collection.search(queries, limit, parameters, expression)
        except Refused:
            self.check()
        try:
            return self._collection.search(queries, limit, parameters, expression)
        except Refused as error:
            if not expression:
                raise self._build_unavailable(error) from None
            # all rows that pass are compared here instead
            LOGGER.warning("Milvus does not take a filter: %s", error)
            return [([], [])] * len(queries)

    @property
    def _collection(self) -> Collection:
        if self._opened is None:
            raise EngineUnavailable("This index was built and not opened yet: open the generation first.")
        return self._opened

    def _build_unavailable(self, error: Refused) -> EngineUnavailable:
        collection = self._collection
        return EngineUnavailable(
            f"Milvus at {collection.server} does not search {collection.name}: {error}. If it was removed "
            "there, start this service again, which loads it."
        )


def _keep_first(near: Any, nodes: RowIndices, passes: Bools, fetch: int) -> Candidates:
    """The first ``fetch`` candidates of each query that pass, in their order; -1 past their end."""
    order = np.argsort(~passes, axis=1, kind="stable")[:, :fetch]
    kept = np.take_along_axis(passes, order, axis=1)
    near, nodes = np.take_along_axis(near, order, axis=1), np.take_along_axis(nodes, order, axis=1)
    return np.where(kept, near, np.float32(-np.inf)), np.where(kept, nodes, -1)


def _read_key(folder: Path) -> str:
    try:
        return CollectionRecord.load(folder / COLLECTION_FILE).key
    except InputError as error:
        raise BundleError(str(error)) from None
