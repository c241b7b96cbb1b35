"""A collection of Milvus that holds the nodes of one generation; its alias says that it is whole.

The name is that of the model, the dimension and a key of the generation. Vectors are loaded into
``NAME_a`` or ``NAME_b``; once all are there, indexed and audited, the alias ``NAME`` is set on it, and
searches go by the alias. A collection without its alias is a load that did not end, which the next continues.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.array_types import RowIndices, UnitVectors
from common.errors import BundleError
from embeddings.instants import parse_instant
from index.engines.engine import NodeSource
from index.engines.milvus.expressions import LABEL, METADATA, MOST_CERTAIN, SHARED
from index.engines.milvus.server import MilvusServer

NODE, VECTOR, LOST = "node", "vector", "lost"
METRIC = "COSINE"
BATCH_ROWS = 1_000  # sent at a time
MOST_CHARACTERS = 16_384  # of a node's label and metadata; a node with more counts as shared
MOST_RESULTS = 16_384  # that Milvus returns for a query
LONGEST_LABEL = 65_535  # bytes; the most that Milvus takes
POLL_SECONDS = 0.5


def name_collection(model_hash: str, dim: int, key: str) -> str:
    """The name of a generation's collection, and of its alias."""
    return f"limen_{model_hash[:16]}_{dim}_{key}"


class Collection:
    """The collection of a name on a server."""

    def __init__(self, server: MilvusServer, name: str, dim: int) -> None:
        self.server = server
        self.name = name
        self._dim = dim

    def is_whole(self, nodes: int) -> bool:
        """Whether so many nodes were loaded and audited; they are brought into memory if need be."""
        loaded = self._find_loaded()
        if loaded is None:
            return False
        self.bring_into_memory(loaded)
        return self._count(loaded) == nodes

    def bring_into_memory(self, collection: str | None = None) -> None:
        """Let Milvus search it, as after its server was started again."""
        self.server.call("load_collection", collection or self.name)

    def fill(self, source: NodeSource, index_parameters: Mapping[str, Any]) -> str:
        """Load what is missing and wait until it is indexed; returns the collection, which has no alias yet.

        An earlier load that was broken off is continued. Raises BundleError if nodes are missing at the end.
        """
        server, nodes = self.server, len(source.firsts)
        old = self._find_loaded()
        new = next(name for name in (f"{self.name}_a", f"{self.name}_b") if name != old)
        if not server.call("has_collection", new):
            self._create(new, source.model_hash, index_parameters)
        self.bring_into_memory(new)
        # whole batches but for the last: what was sent of that one is sent again
        done = self._count(new) // BATCH_ROWS * BATCH_ROWS
        starts = range(done, nodes, BATCH_ROWS)
        for start in source.track(starts, f"Milvus at {server}", len(starts)):
            self._upsert(new, source, np.arange(start, min(start + BATCH_ROWS, nodes)))
        server.call("flush", new)
        for _ in source.track(self._wait_for_index(new), "Milvus' index"):
            pass
        self.bring_into_memory(new)
        count = self._count(new)
        if count != nodes:
            server.call("drop_collection", new)
            raise BundleError(
                f"Milvus at {server} holds {count} of {nodes} vectors in {new} after all were sent: it was "
                "removed; load it again."
            )
        return new

    def publish(self, collection: str, source: NodeSource, lost: RowIndices) -> None:
        """Mark the nodes that searches miss, and set the alias: from now on this collection is searched."""
        old = self._find_loaded()
        for start in range(0, len(lost), BATCH_ROWS):
            self._upsert(collection, source, lost[start : start + BATCH_ROWS], lost=True)
        self.server.call("create_alias" if old is None else "alter_alias", collection, self.name)
        if old is not None:
            self.server.call("drop_collection", old)

    def read_lost(self) -> RowIndices:
        """The nodes that were marked, int64 ascending."""
        found: list[int] = []
        while True:
            last = found[-1] if found else -1
            rows = self.server.call(
                "query",
                self.name,
                filter=f"{LOST} == true and {NODE} > {last}",
                output_fields=[NODE],
                limit=MOST_RESULTS,
                consistency_level="Strong",
            )
            found += sorted(int(row[NODE]) for row in rows)
            if len(rows) < MOST_RESULTS:
                return np.array(found, dtype=np.int64)

    def search(
        self, queries: UnitVectors, limit: int, parameters: Mapping[str, Any], expression: str
    ) -> list[tuple[list[int], list[float]]]:
        """The nearest nodes of each query [q, d], and their similarities, best first.

        What was loaded does not change, so that the level of consistency changes nothing: ``Bounded`` is
        Milvus' own.
        """
        results = self.server.call(
            "search",
            self.name,
            data=queries,
            anns_field=VECTOR,
            limit=limit,
            filter=expression,
            search_params={"metric_type": METRIC, "params": dict(parameters)},
            output_fields=[NODE],
            consistency_level="Bounded",
        )
        return [(hits.ids, hits.distances) for hits in results]

    def drop(self) -> None:
        """Remove it, and what a load that was broken off left."""
        if self._find_loaded() is not None:
            self.server.call("drop_alias", self.name)
        for name in (f"{self.name}_a", f"{self.name}_b"):
            if self.server.call("has_collection", name):
                self.server.call("drop_collection", name)

    def _find_loaded(self) -> str | None:
        """The collection that the alias is on; None if there is no alias."""
        names = [name for name in (f"{self.name}_a", f"{self.name}_b") if self._has(name)]
        for name in names:
            if self.name in self.server.call("list_aliases", name)["aliases"]:
                return name
        return None

    def _has(self, name: str) -> bool:
        return bool(self.server.call("has_collection", name))

    def _count(self, collection: str) -> int:
        rows = self.server.call(
            "query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(rows[0]["count(*)"])

    def _create(self, name: str, model_hash: str, index_parameters: Mapping[str, Any]) -> None:
        from pymilvus import DataType, MilvusClient

        description = f"Limen: vectors of model {model_hash}"
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=description
        )
        schema.add_field(NODE, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self._dim)
        schema.add_field(LABEL, DataType.VARCHAR, max_length=LONGEST_LABEL)
        schema.add_field(METADATA, DataType.JSON)
        schema.add_field(SHARED, DataType.BOOL)
        schema.add_field(LOST, DataType.BOOL)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index(VECTOR, metric_type=METRIC, **index_parameters)
        self.server.call(
            "create_collection", name, schema=schema, index_params=indexes, consistency_level="Bounded"
        )

    def _upsert(self, name: str, source: NodeSource, nodes: RowIndices, *, lost: bool = False) -> None:
        vectors = np.ascontiguousarray(source.vectors[source.firsts[nodes]])
        rows = []
        for node, vector, described in zip(nodes.tolist(), vectors, source.describe(nodes), strict=True):
            label, metadata = ("", {}) if described is None else described
            kept = {field: _keep(field, value, source.times) for field, value in metadata.items()}
            is_shared = described is None or None in kept.values() or _measure(label, kept) > MOST_CHARACTERS
            rows.append(
                {
                    NODE: node,
                    VECTOR: vector,
                    LABEL: "" if is_shared else label,
                    METADATA: {} if is_shared else kept,
                    SHARED: is_shared,
                    LOST: lost,
                }
            )
        self.server.call("upsert", name, rows)

    def _wait_for_index(self, collection: str) -> Iterator[None]:
        while int(self.server.call("describe_index", collection, VECTOR).get("pending_index_rows", 0)) > 0:
            yield
            time.sleep(POLL_SECONDS)


def _keep(field: str, value: Any, times: frozenset[str]) -> Any:
    """A value as expressions compare it; None for one that Milvus might compare differently."""
    if field in times:
        return parse_instant(value)
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, int) and abs(part) > MOST_CERTAIN:
            return None
    return value


def _measure(label: str, metadata: Mapping[str, Any]) -> int:
    return len(label) + sum(len(field) + len(str(value)) for field, value in metadata.items())
