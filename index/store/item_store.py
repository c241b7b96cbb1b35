"""Items in a database: what is acknowledged is on disk here, and all else can be rebuilt from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from common.errors import LimenError
from index.items.columns import FieldUse
from index.items.metadata import USUAL_BOUNDS, MetadataBounds, MetadataValue
from index.items.stored_item import StoredItem, check_items, is_storable, merge_fields, subtract_fields
from index.store.change_log import FORGOTTEN, select_log
from index.store.document_store import BuiltGeneration, DocumentStore, StoreState, select_state
from index.store.id_lists import split_ids
from index.store.tables import DELETIONS, FEEDBACK, FIELDS, ITEMS, THUMBNAILS
from index.store.unknown_changes import forget_items
from index.store.write_order import WriteOrder

DATABASE_FILE = "limen.sqlite"
READ_BLOCK = 8_192
MOST_DELETIONS = 1_000_000  # that are listed for other processes which follow
Within = Callable[[sa.Connection], object]
"""Further statements of a transaction."""


def _do_nothing(connection: sa.Connection) -> None:
    """No further statements."""


THUMBNAILS_FROM = "thumbnails_from"  # setting: the hash of the bundle's thumbnails that were taken over


@dataclass(frozen=True)
class Changes:
    """Changes after a sequence number: items written, and every id that was written or deleted."""

    written: list[StoredItem]
    touched: list[str]


class Snapshot(NamedTuple):
    """All items as of one sequence number: how many, and blocks of them in the order of their ids."""

    sequence: int
    n: int
    blocks: Iterator[list[StoredItem]]


class TooFarBehind(LimenError):
    """The changes since a sequence number are no longer all there."""


class ItemStore(DocumentStore):
    """Items, and what is kept with them; every method is one transaction.

    Attributes:
        bounds: what the metadata of a write may be.
    """

    bounds: MetadataBounds = USUAL_BOUNDS

    def seed(
        self,
        items: Iterator[list[StoredItem]],
        model_hash: str,
        points: Mapping[str, str],
        settings: Mapping[str, str],
        fields: Mapping[str, FieldUse],
    ) -> None:
        """Fill an empty store, all or nothing; sequence 0 says that a generation holds these items.

        Args:
            fields: the metadata fields of the items.
        """
        with self._begin_write() as connection:
            if self._is_begun(connection):  # by another process, meanwhile
                return
            for block in items:
                connection.execute(ITEMS.insert(), [_to_row(item, model_hash, 0) for item in block])
            self._write_fields(connection, fields)
            self._set_points(connection, points)
            self._set(connection, {**settings, "model_hash": model_hash})
        self._fields = dict(fields)

    def upsert(
        self,
        items: Sequence[StoredItem],
        model_hash: str,
        order: WriteOrder | None = None,
        thumbnails: Mapping[str, bytes] | None = None,
        also: Within = _do_nothing,
    ) -> int:
        """Write items, replacing those with the same id; returns how many were new. On return it is on disk.

        The thumbnail of a replaced item goes, for it shows another input; ``thumbnails`` by id are new ones.
        ``also`` is done in the same transaction.
        Raises InputError for an item that no gallery takes, or metadata of a kind its field does not have.
        """
        check_items(items, self.bounds)
        ids = [item.id for item in items]
        with self._begin_write(order) as connection:
            sequence = self.sequence + 1
            replaced = _select_metadata(connection, ids)
            fields = merge_fields(items, replaced.values(), self._fields, self.bounds)
            self._upsert(connection, ITEMS, [_to_row(item, model_hash, sequence) for item in items])
            for part in split_ids(ids):
                connection.execute(DELETIONS.delete().where(DELETIONS.c.id.in_(part)))
                connection.execute(THUMBNAILS.delete().where(THUMBNAILS.c.id.in_(part)))
            _insert_thumbnails(connection, thumbnails or {})
            self._write_fields(connection, fields)
            self._set(connection, {"newest": str(sequence)})
            also(connection)
            if order is not None:
                order.ids = ids
        self._fields, self.sequence = fields, sequence
        return len(items) - len(replaced)

    def delete(
        self, ids: Sequence[str], order: WriteOrder | None = None, also: Within = _do_nothing
    ) -> list[str]:
        """Delete items, their thumbnails, feedback about them and what the pool of unknowns keeps of them.

        Returns the ids that were there; on return it is on disk. ``also`` is done first, in that transaction.
        """
        gone: list[str] = []
        with self._begin_write(order) as connection:
            sequence, fields = self.sequence + 1, self._fields
            also(connection)
            for part in split_ids(sorted(set(filter(is_storable, ids)))):
                forget_items(connection, part)
                about = FEEDBACK.c.a.in_(part) | FEEDBACK.c.b.in_(part)
                if connection.execute(FEEDBACK.delete().where(about)).rowcount:
                    self._topics.add("corrections")
                connection.execute(THUMBNAILS.delete().where(THUMBNAILS.c.id.in_(part)))
                known = _select_metadata(connection, part)
                fields = subtract_fields(known.values(), fields)
                connection.execute(ITEMS.delete().where(ITEMS.c.id.in_(list(known))))
                self._upsert(connection, DELETIONS, [{"id": name, "sequence": sequence} for name in known])
                gone += known
            if gone:
                self._write_fields(connection, fields)
                self._set(connection, {"newest": str(sequence)})
            if order is not None:
                order.ids = gone
        if gone:
            self._fields, self.sequence = fields, sequence
        return gone

    def get(self, item_id: str) -> StoredItem | None:
        if not is_storable(item_id):
            return None
        with self._read() as connection:
            row = connection.execute(_COLUMNS.where(ITEMS.c.id == item_id)).one_or_none()
            return None if row is None else _to_item(row)

    def add_thumbnails(self, blocks: Iterable[Mapping[str, bytes]], source: str) -> None:
        """Keep thumbnails, by id, of the items that are as the store was seeded with, all or nothing.

        ``source`` is what the setting ``thumbnails_from`` says then.
        """
        with self._begin_write() as connection:
            for block in blocks:
                for part in split_ids(list(block)):
                    seeded = sa.select(ITEMS.c.id).where(ITEMS.c.id.in_(part) & (ITEMS.c.sequence == 0))
                    rows = [
                        {"id": item_id, "content": block[item_id]}
                        for item_id in connection.execute(seeded).scalars()
                    ]
                    self._upsert(connection, THUMBNAILS, rows)
            self._set(connection, {THUMBNAILS_FROM: source})

    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The thumbnails, by id, of those of the items that have one."""
        columns = sa.select(THUMBNAILS.c.id, THUMBNAILS.c.content)
        with self._read() as connection:
            parts = split_ids(list(filter(is_storable, ids)))
            rows = (
                row for part in parts for row in connection.execute(columns.where(THUMBNAILS.c.id.in_(part)))
            )
            return {row.id: bytes(row.content) for row in rows}

    def select_known(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that items have."""
        with self._read() as connection:
            return set(_select_known(connection, list(filter(is_storable, ids))))

    def page(self, after: str | None, limit: int) -> list[StoredItem]:
        """Items in the order of their ids, after a text that need not be one of them."""
        statement = _COLUMNS.order_by(ITEMS.c.id).limit(limit)
        if after is not None:
            # NUL sorts before all else, half a character among what no id holds: what follows is the same
            storable = next(end for end in range(len(after), -1, -1) if is_storable(after[:end]))
            statement = statement.where(ITEMS.c.id > after[:storable])
        with self._read() as connection:
            return [_to_item(row) for row in connection.execute(statement)]

    @contextmanager
    def open_snapshot(self) -> Iterator[Snapshot]:
        """All items as of now, whatever is written meanwhile."""
        with self._read() as connection:
            newest = select_state(connection).newest
            n = connection.execute(sa.select(sa.func.count()).select_from(ITEMS)).scalar_one()
            yield Snapshot(newest, int(n), _iterate_items(connection))

    def read_changes_after(self, sequence: int, generation: str | None) -> tuple[StoreState, Changes | None]:
        """Changes after a sequence number, and the state that they lead to.

        None where the database names another generation by now: it may have forgotten older deletions.
        """
        with self._read() as connection:
            state = self._select_state(connection)
            if state.generation != generation:
                return state, None
            if self.database.is_server and sequence < select_log(connection).forgotten:
                raise TooFarBehind("Deletions since are no longer listed: the index must be built again.")
            rows = connection.execute(_COLUMNS.where(ITEMS.c.sequence > sequence).order_by(ITEMS.c.id))
            written = [_to_item(row) for row in rows]
            deleted = connection.execute(sa.select(DELETIONS.c.id).where(DELETIONS.c.sequence > sequence))
            return state, Changes(written, [*(item.id for item in written), *deleted.scalars()])

    def switch(self, generation: str, sequence: int, settings: Mapping[str, str] = {}) -> None:
        """Name the generation that holds everything up to a sequence number, and forget older deletions.

        Further ``settings`` change in the same transaction. Where other processes follow, which may not have
        seen them yet, the latest million deletions stay.
        """
        with self._begin_write() as connection:
            if self._built is None:
                self._set(connection, {**settings, "generation": generation, "sequence": str(sequence)})
                connection.execute(DELETIONS.delete().where(DELETIONS.c.sequence <= sequence))
            else:
                self._set(connection, settings)
                self._forget_deletions(connection)
        if self._built is not None:
            BuiltGeneration(generation=generation, sequence=sequence).save(self._built, private=True)

    def _forget_deletions(self, connection: sa.Connection) -> None:
        by_age = sa.select(DELETIONS.c.sequence).order_by(DELETIONS.c.sequence.desc())
        oldest = connection.execute(by_age.offset(MOST_DELETIONS).limit(1)).scalar()
        if oldest is not None:
            connection.execute(DELETIONS.delete().where(DELETIONS.c.sequence <= oldest))
            self._set(connection, {FORGOTTEN: str(oldest)})

    def _write_fields(self, connection: sa.Connection, fields: Mapping[str, FieldUse]) -> None:
        forgotten = sorted(self._fields.keys() - fields.keys())
        for part in split_ids(forgotten):
            connection.execute(FIELDS.delete().where(FIELDS.c.name.in_(part)))
        changed = [
            {"name": name, "kind": use.kind, "n_items": use.items}
            for name, use in fields.items()
            if self._fields.get(name) != use
        ]
        self._upsert(connection, FIELDS, changed)


_COLUMNS = sa.select(ITEMS.c.id, ITEMS.c.label, ITEMS.c.vector, ITEMS.c.metadata)


def _iterate_items(connection: sa.Connection) -> Iterator[list[StoredItem]]:
    result = connection.execution_options(yield_per=READ_BLOCK).execute(_COLUMNS.order_by(ITEMS.c.id))
    for block in result.partitions(READ_BLOCK):
        yield [_to_item(row) for row in block]


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


def _insert_thumbnails(connection: sa.Connection, thumbnails: Mapping[str, bytes]) -> None:
    if thumbnails:
        rows = [{"id": item_id, "content": content} for item_id, content in thumbnails.items()]
        connection.execute(THUMBNAILS.insert(), rows)


def _select_known(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
    statements = (sa.select(ITEMS.c.id).where(ITEMS.c.id.in_(part)) for part in split_ids(ids))
    return [item_id for statement in statements for item_id in connection.execute(statement).scalars()]


def _select_metadata(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, MetadataValue]]:
    """The metadata by id of those of the items that there are."""
    columns = sa.select(ITEMS.c.id, ITEMS.c.metadata)
    rows = (row for part in split_ids(ids) for row in connection.execute(columns.where(ITEMS.c.id.in_(part))))
    return {item_id: json.loads(metadata) for item_id, metadata in rows}
