"""Items in a database: what is acknowledged is on disk here, and all else can be rebuilt from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from index.items.columns import ColumnKind
from index.items.stored_item import StoredItem, check_ids, merge_fields
from index.store.document_store import DocumentStore, StoreState, select_state
from index.store.tables import DELETIONS, FEEDBACK, FIELDS, ITEMS

DATABASE_FILE = "limen.sqlite"
IDS_A_STATEMENT = 500
READ_BLOCK = 8_192


@dataclass(frozen=True)
class Changes:
    """Changes after a sequence number: items written, and every id that was written or deleted."""

    written: list[StoredItem]
    touched: list[str]


class ItemStore(DocumentStore):
    """Items, and what is kept with them; every method is one transaction."""

    def seed(
        self,
        items: Iterator[list[StoredItem]],
        model_hash: str,
        points: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        """Fill an empty store, all or nothing; sequence 0 says that a generation holds these items."""
        with self._begin_write() as connection:
            fields = dict(self.fields)
            for block in items:
                fields = merge_fields(block, fields)
                connection.execute(ITEMS.insert(), [_to_row(item, model_hash, 0) for item in block])
            self._write_fields(connection, fields)
            self._set_points(connection, points)
            self._set(connection, {**settings, "model_hash": model_hash})
        self.fields = fields

    def upsert(self, items: Sequence[StoredItem], model_hash: str) -> int:
        """Write items, replacing those with the same id; returns how many were new. On return it is on disk.

        Raises InputError for an id twice, empty or long, or metadata of a kind its field does not have.
        """
        check_ids(items)
        fields = merge_fields(items, self.fields)
        sequence = self.sequence + 1
        ids = [item.id for item in items]
        with self._begin_write() as connection:
            known = _select_known(connection, ids)
            self._upsert(connection, ITEMS, [_to_row(item, model_hash, sequence) for item in items])
            for part in _split(ids):
                connection.execute(DELETIONS.delete().where(DELETIONS.c.id.in_(part)))
            self._write_fields(connection, fields)
            self._set(connection, {"newest": str(sequence)})
        self.fields, self.sequence = fields, sequence
        return len(items) - len(known)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete items and feedback about them; returns the ids that were there. On return it is on disk."""
        sequence = self.sequence + 1
        gone: list[str] = []
        with self._begin_write() as connection:
            for part in _split(sorted(set(ids))):
                connection.execute(FEEDBACK.delete().where(FEEDBACK.c.a.in_(part) | FEEDBACK.c.b.in_(part)))
                known = _select_known(connection, part)
                connection.execute(ITEMS.delete().where(ITEMS.c.id.in_(known)))
                self._upsert(connection, DELETIONS, [{"id": name, "sequence": sequence} for name in known])
                gone += known
            if gone:
                self._set(connection, {"newest": str(sequence)})
        if gone:
            self.sequence = sequence
        return gone

    def get(self, item_id: str) -> StoredItem | None:
        with self._engine.connect() as connection:
            row = connection.execute(_COLUMNS.where(ITEMS.c.id == item_id)).one_or_none()
            return None if row is None else _to_item(row)

    def select_known(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that items have."""
        with self._engine.connect() as connection:
            return set(_select_known(connection, list(ids)))

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        statement = _COLUMNS.order_by(ITEMS.c.id).limit(limit)
        if after is not None:
            statement = statement.where(ITEMS.c.id > after)
        with self._engine.connect() as connection:
            return [_to_item(row) for row in connection.execute(statement)]

    def read_all(self) -> Iterator[list[StoredItem]]:
        """All items in the order of their ids, as of the first block, whatever is written meanwhile."""
        with self._engine.connect() as connection:
            result = connection.execution_options(yield_per=READ_BLOCK).execute(_COLUMNS.order_by(ITEMS.c.id))
            for block in result.partitions(READ_BLOCK):
                yield [_to_item(row) for row in block]

    def read_changes_after(self, sequence: int, generation: str | None) -> tuple[StoreState, Changes | None]:
        """Changes after a sequence number, and the state that they lead to.

        None where the database names another generation by now: it may have forgotten older deletions.
        """
        with self._engine.connect() as connection:
            state = select_state(connection)
            if state.generation != generation:
                return state, None
            rows = connection.execute(_COLUMNS.where(ITEMS.c.sequence > sequence).order_by(ITEMS.c.id))
            written = [_to_item(row) for row in rows]
            deleted = connection.execute(sa.select(DELETIONS.c.id).where(DELETIONS.c.sequence > sequence))
            return state, Changes(written, [*(item.id for item in written), *deleted.scalars()])

    def switch(self, generation: str, sequence: int) -> None:
        """Name the generation that holds everything up to a sequence number, and forget older deletions."""
        with self._begin_write() as connection:
            self._set(connection, {"generation": generation, "sequence": str(sequence)})
            connection.execute(DELETIONS.delete().where(DELETIONS.c.sequence <= sequence))

    def _write_fields(self, connection: sa.Connection, fields: Mapping[str, ColumnKind]) -> None:
        new = [{"name": name, "kind": kind} for name, kind in fields.items() if name not in self.fields]
        if new:
            connection.execute(FIELDS.insert(), new)


_COLUMNS = sa.select(ITEMS.c.id, ITEMS.c.label, ITEMS.c.vector, ITEMS.c.metadata)


def _to_item(row: Any) -> StoredItem:
    return StoredItem(row[0], row[1], np.frombuffer(row[2], dtype="<f4"), json.loads(row[3]))


def _to_row(item: StoredItem, model_hash: str, sequence: int) -> dict[str, Any]:
    return {
        "id": item.id,
        "label": item.label,
        "metadata": json.dumps(dict(item.metadata), ensure_ascii=False, allow_nan=False),
        "vector": np.ascontiguousarray(item.vector, dtype="<f4").tobytes(),
        "model_hash": model_hash,
        "sequence": sequence,
    }


def _select_known(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
    statements = (sa.select(ITEMS.c.id).where(ITEMS.c.id.in_(part)) for part in _split(ids))
    return [item_id for statement in statements for item_id in connection.execute(statement).scalars()]


def _split(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + IDS_A_STATEMENT] for start in range(0, len(ids), IDS_A_STATEMENT))
