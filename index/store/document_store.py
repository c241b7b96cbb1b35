"""Documents and settings in a database, the writer's lock, and the state that readers watch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from common.errors import LimenError
from index.items.columns import ColumnKind
from index.store.databases.database import get_first_line
from index.store.open_database import open_database
from index.store.tables import FIELDS, ITEMS, POINTS, SETTINGS, copy_tables


class StoreInUse(LimenError):
    """A second writer tried to open a data folder or database."""


class StoreFailed(LimenError):
    """The database could not take a write, for instance because the disk is full; it was not acknowledged."""


class StoreState(NamedTuple):
    """State of a store: generation, base and newest sequence number.

    ``generation`` holds everything up to the sequence number ``base`` (None: the bundle's own files do);
    ``newest`` is the sequence number of the last write.
    """

    generation: str | None
    base: int
    newest: int


class DocumentStore:
    """Settings, operating points, feedback and the history of reports; one writer, readers at any time.

    The tables are made if need be, see ``open_database``. What the database cannot take raises StoreFailed.

    Args:
        read_only: take no writes, and do not count as the writer, of whom another raises StoreInUse.
    """

    def __init__(self, where: Path | str, schema: str | None = None, *, read_only: bool = False) -> None:
        self.database = open_database(where, schema, read_only=read_only)
        self._engine = self.database.engine
        self._writer: sa.Connection | None = None
        try:
            if not read_only:
                self._writer = self._lock_writer()
            self.fields: dict[str, ColumnKind] = {}
            self.sequence = 0
            self.reload()
        except BaseException:
            self.close()
            raise

    def reload(self) -> None:
        """Read again what is remembered of the database, after a write whose end is not known."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(FIELDS.c.name, FIELDS.c.kind)).all()
            self.fields = {row.name: row.kind for row in rows}
            self.sequence = select_state(connection).newest

    def close(self) -> None:
        """Close the connections, and release the database."""
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def read_setting(self, name: str) -> str | None:
        return next(iter(self._read_column(sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name))), None)

    def set_settings(self, values: Mapping[str, str]) -> None:
        with self._begin_write() as connection:
            self._set(connection, values)

    def read_state(self) -> StoreState:
        """The state now."""
        with self._engine.connect() as connection:
            return select_state(connection)

    def set_points(self, documents: Mapping[str, str]) -> None:
        """Keep operating points, as JSON by id."""
        with self._begin_write() as connection:
            self._set_points(connection, documents)

    def read_points(self) -> dict[str, str]:
        """Operating points as JSON by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(POINTS.c.id, POINTS.c.document)).all()
            return {row.id: row.document for row in rows}

    def copy_to(self, file: Path) -> None:
        """Write all there is, as of one moment, into a new SQLite file."""
        engine = open_database(file).engine
        with self._engine.connect() as source, engine.begin() as target:
            copy_tables(source, target)
        engine.dispose()

    def fill_from(self, file: Path) -> None:
        """Take over all there is in the SQLite file of a store."""
        engine = open_database(file).engine
        with engine.connect() as source, self._begin_write() as target:
            copy_tables(source, target)
        engine.dispose()
        self.reload()

    def add_document(self, table: sa.Table, document: str, **columns: str | None) -> None:
        """Keep feedback, which goes when an item is deleted that its columns name, or a report."""
        with self._begin_write() as connection:
            connection.execute(table.insert().values(document=document, **columns))

    def read_documents(self, table: sa.Table) -> list[str]:
        """Feedback or reports, oldest first."""
        return self._read_column(sa.select(table.c.document).order_by(table.c.number))

    def count(self, table: sa.Table = ITEMS) -> int:
        """Number of items, or of rows of another table."""
        return int(self._read_column(sa.select(sa.func.count()).select_from(table))[0])

    def _read_column(self, statement: sa.Select[Any]) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(statement).scalars())

    @contextmanager
    def _begin_write(self) -> Iterator[sa.Connection]:
        """A transaction of the writer's own connection; on return it is on disk."""
        try:
            if self._writer is None or self._writer.invalidated:
                self._writer = self._lock_writer()
            with self._writer.begin():
                yield self._writer
        except sa.exc.DBAPIError as error:
            raise StoreFailed(
                f"{self.database} did not take the write: {get_first_line(error)}. It was not acknowledged; "
                "send it again once the database can take it."
            ) from error

    def _lock_writer(self) -> sa.Connection:
        """The writer's connection. A data folder has a lock file; a schema on a server is locked here."""
        connection = self._engine.connect().execution_options(writes=True)
        try:
            if not self.database.try_lock_writer(connection):
                raise StoreInUse(
                    f"{self.database} is being written by another process: a database schema has one "
                    "writer. Stop the other, or give this one a database of its own."
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _set(self, connection: sa.Connection, values: Mapping[str, str]) -> None:
        rows = [{"name": name, "value": value} for name, value in values.items()]
        self._upsert(connection, SETTINGS, rows)

    def _set_points(self, connection: sa.Connection, documents: Mapping[str, str]) -> None:
        rows = [{"id": point_id, "document": document} for point_id, document in documents.items()]
        self._upsert(connection, POINTS, rows)

    def _upsert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or replace those with the same primary key."""
        if not rows:
            return
        statement = self.database.insert(table)
        replaced = {
            name: statement.excluded[name] for name in rows[0] if name not in table.primary_key.columns
        }
        keys = list(table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), rows)


_STATE = sa.select(SETTINGS.c.name, SETTINGS.c.value).where(
    SETTINGS.c.name.in_(["generation", "sequence", "newest"])
)


def select_state(connection: sa.Connection) -> StoreState:
    """The state as one transaction sees it."""
    values = {row.name: row.value for row in connection.execute(_STATE)}
    return StoreState(values.get("generation"), int(values.get("sequence", 0)), int(values.get("newest", 0)))
