"""The truth about items: what is acknowledged is on disk here, and all else can be rebuilt from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from api_schemas.errors import InputError
from decision.similarity import Vectors
from index.columns import ColumnKind
from index.items import RESERVED, Value
from index.tables import DELETIONS, FIELDS, ITEMS, POINTS, SETTINGS, open_database

DATABASE_FILE = "limen.sqlite"
LONGEST_ID = 512  # characters
IDS_A_STATEMENT = 500
READ_BLOCK = 8_192


@dataclass(frozen=True, eq=False)
class StoredItem:
    """One item; ``vector`` float32 [d], a unit row."""

    id: str
    label: str
    vector: Vectors
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What happened after a sequence number: items written, and every id that was written or deleted."""

    written: list[StoredItem]
    touched: list[str]


class ItemStore:
    """Items in SQLite; one writer, readers at any time. Every method is one transaction."""

    def __init__(self, folder: Path) -> None:
        self._engine = open_database(folder / DATABASE_FILE)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(FIELDS.c.name, FIELDS.c.kind)).all()
            self.fields: dict[str, ColumnKind] = {row.name: row.kind for row in rows}
            newest = [
                connection.execute(sa.select(sa.func.max(table.c.sequence))).scalar()
                for table in (ITEMS, DELETIONS)
            ]
        self.sequence = max(int(number or 0) for number in [*newest, self.setting("sequence")])

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def setting(self, name: str) -> str | None:
        """A setting, or None."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)).scalar()
            return None if found is None else str(found)

    def set_settings(self, values: Mapping[str, str]) -> None:
        """Write settings together."""
        with self._engine.begin() as connection:
            for name, value in values.items():
                statement = insert(SETTINGS).values(name=name, value=value)
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
                )

    def set_points(self, documents: Mapping[str, str]) -> None:
        """Keep operating points, as JSON by id."""
        with self._engine.begin() as connection:
            for point_id, document in documents.items():
                statement = insert(POINTS).values(id=point_id, document=document)
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["id"], set_={"document": document})
                )

    def points(self) -> dict[str, str]:
        """Operating points as JSON by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(POINTS.c.id, POINTS.c.document)).all()
            return {row.id: row.document for row in rows}

    def seed(self, items: Iterator[list[StoredItem]], model_hash: str) -> None:
        """Fill an empty store, all or nothing; sequence 0 says that a generation holds these items."""
        with self._engine.begin() as connection:
            fields = dict(self.fields)
            for block in items:
                fields = _checked_fields(block, fields)
                connection.execute(ITEMS.insert(), [_row(item, model_hash, 0) for item in block])
            self._write_fields(connection, fields)
            connection.execute(SETTINGS.insert().values(name="model_hash", value=model_hash))
        self.fields = fields

    def upsert(self, items: Sequence[StoredItem], model_hash: str) -> int:
        """Write items, replacing those with the same id; returns how many were new. On return it is on disk.

        Raises:
            InputError: an id twice, an empty or long id, or metadata of a kind its field does not have.
        """
        _check_ids(items)
        fields = _checked_fields(items, self.fields)
        sequence = self.sequence + 1
        ids = [item.id for item in items]
        with self._engine.begin() as connection:
            known = sum(
                connection.execute(
                    sa.select(sa.func.count()).select_from(ITEMS).where(ITEMS.c.id.in_(some))
                ).scalar_one()
                for some in _in_parts(ids)
            )
            statement = insert(ITEMS)
            columns = ("label", "metadata", "vector", "model_hash", "sequence")
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["id"], set_={name: statement.excluded[name] for name in columns}
                ),
                [_row(item, model_hash, sequence) for item in items],
            )
            for some in _in_parts(ids):
                connection.execute(DELETIONS.delete().where(DELETIONS.c.id.in_(some)))
            self._write_fields(connection, fields)
        self.fields, self.sequence = fields, sequence
        return len(items) - known

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete items; returns the ids that were there. On return it is on disk."""
        sequence = self.sequence + 1
        gone: list[str] = []
        with self._engine.begin() as connection:
            for some in _in_parts(sorted(set(ids))):
                there = connection.execute(sa.select(ITEMS.c.id).where(ITEMS.c.id.in_(some))).scalars().all()
                if there:
                    connection.execute(ITEMS.delete().where(ITEMS.c.id.in_(there)))
                    statement = insert(DELETIONS)
                    connection.execute(
                        statement.on_conflict_do_update(
                            index_elements=["id"], set_={"sequence": statement.excluded.sequence}
                        ),
                        [{"id": one, "sequence": sequence} for one in there],
                    )
                    gone += there
        if gone:
            self.sequence = sequence
        return gone

    def get(self, item_id: str) -> StoredItem | None:
        """An item, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(_COLUMNS.where(ITEMS.c.id == item_id)).one_or_none()
            return None if row is None else _item(row)

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        statement = _COLUMNS.order_by(ITEMS.c.id).limit(limit)
        if after is not None:
            statement = statement.where(ITEMS.c.id > after)
        with self._engine.connect() as connection:
            return [_item(row) for row in connection.execute(statement)]

    def count(self) -> int:
        """How many items there are."""
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(ITEMS)).scalar_one())

    def read_all(self) -> Iterator[list[StoredItem]]:
        """All items in the order of their ids, as of the first block, whatever is written meanwhile."""
        with self._engine.connect() as connection:
            result = connection.execution_options(yield_per=READ_BLOCK).execute(_COLUMNS.order_by(ITEMS.c.id))
            for block in result.partitions(READ_BLOCK):
                yield [_item(row) for row in block]

    def changes_after(self, sequence: int) -> Changes:
        """What was written and deleted after a sequence number."""
        with self._engine.connect() as connection:
            rows = connection.execute(_COLUMNS.where(ITEMS.c.sequence > sequence).order_by(ITEMS.c.id))
            written = [_item(row) for row in rows]
            deleted = connection.execute(sa.select(DELETIONS.c.id).where(DELETIONS.c.sequence > sequence))
            return Changes(written, [*(item.id for item in written), *deleted.scalars()])

    def switch(self, generation: str, sequence: int) -> None:
        """Name the generation that holds everything up to a sequence number, and forget older deletions."""
        with self._engine.begin() as connection:
            for name, value in (("generation", generation), ("sequence", str(sequence))):
                statement = insert(SETTINGS).values(name=name, value=value)
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
                )
            connection.execute(DELETIONS.delete().where(DELETIONS.c.sequence <= sequence))

    def _write_fields(self, connection: sa.Connection, fields: Mapping[str, ColumnKind]) -> None:
        new = [{"name": name, "kind": kind} for name, kind in fields.items() if name not in self.fields]
        if new:
            connection.execute(FIELDS.insert(), new)


_COLUMNS = sa.select(ITEMS.c.id, ITEMS.c.label, ITEMS.c.vector, ITEMS.c.metadata)


def _item(row: Any) -> StoredItem:
    return StoredItem(row[0], row[1], np.frombuffer(row[2], dtype="<f4"), json.loads(row[3]))


def _row(item: StoredItem, model_hash: str, sequence: int) -> dict[str, Any]:
    return {
        "id": item.id,
        "label": item.label,
        "metadata": json.dumps(dict(item.metadata), ensure_ascii=False, allow_nan=False),
        "vector": np.ascontiguousarray(item.vector, dtype="<f4").tobytes(),
        "model_hash": model_hash,
        "sequence": sequence,
    }


def _in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + IDS_A_STATEMENT] for start in range(0, len(ids), IDS_A_STATEMENT))


def _check_ids(items: Sequence[StoredItem]) -> None:
    seen: set[str] = set()
    for number, item in enumerate(items):
        if not item.id or len(item.id) > LONGEST_ID:
            raise InputError(
                f"items.{number}.id must have 1 to {LONGEST_ID} characters, found {len(item.id)}."
            )
        if "\0" in item.id or "\0" in item.label:
            raise InputError(f"items.{number} holds a NUL character in its id or label.")
        if item.id in seen:
            raise InputError(f"items.{number}.id: '{item.id}' occurs twice in one request.")
        seen.add(item.id)


def _checked_fields(items: Sequence[StoredItem], known: Mapping[str, ColumnKind]) -> dict[str, ColumnKind]:
    fields = dict(known)
    for number, item in enumerate(items):
        for name, value in item.metadata.items():
            if value is None:
                continue
            kind = _kind(value)
            if kind is None or name in RESERVED or not name or name[0] in "_$":
                raise InputError(
                    f"items.{number}.metadata.{name}: a field is text, a finite number or a boolean; 'id', "
                    f"'label' and names that begin with '_' or '$' are taken; found {value!r:.60}."
                )
            if fields.setdefault(name, kind) != kind:
                raise InputError(
                    f"items.{number}.metadata.{name}: the field is {_article(fields[name])} in this gallery, "
                    f"found {value!r:.60}."
                )
    return fields


def _kind(value: object) -> ColumnKind | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int):
        return "number" if -(2**53) <= value <= 2**53 else None
    return "number" if isinstance(value, float) and np.isfinite(value) else None


def _article(kind: ColumnKind) -> str:
    return "text" if kind == "text" else f"a {kind}"
