"""The database behind an item store: the writer's lock, the state that readers watch, and documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from common.errors import LimenError
from index.items.columns import ColumnKind
from index.store.tables import (
    FEEDBACK,
    FIELDS,
    POINTS,
    REPORTS,
    SETTINGS,
    copy_tables,
    first_line,
    open_database,
)


class StoreInUse(LimenError):
    """A second writer asked for a data folder or database."""


class StoreFailed(LimenError):
    """The database could not take a write, for instance because the disk is full; it was not acknowledged."""


class StoreState(NamedTuple):
    """What readers watch.

    ``generation`` holds everything up to the sequence number ``base`` (None: the bundle's own files do);
    ``newest`` is the sequence number of the last write.
    """

    generation: str | None
    base: int
    newest: int


class Database:
    """Settings, operating points, feedback and the history of reports; one writer, readers at any time.

    Args:
        where: a SQLite file, or the address of a PostgreSQL database.
        schema: the schema of the tables, for PostgreSQL; it is made if need be.
        read_only: take no writes, and do not count as the writer.

    Raises:
        StoreInUse: another process writes to the same PostgreSQL schema.
        BundleError: it is no item store, or of another version.
    """

    def __init__(self, where: Path | str, schema: str | None = None, *, read_only: bool = False) -> None:
        self._file = where if isinstance(where, Path) else None
        self._engine = open_database(where, schema, read_only=read_only)
        self._name = str(where) if isinstance(where, Path) else repr(self._engine.url)
        self._insert = (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert
        self._writer: sa.Connection | None = None
        try:
            if not read_only:
                self._writer = self._locked()
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
            self.sequence = state_of(connection).newest

    def close(self) -> None:
        """Close the connections, and let go of the database."""
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def setting(self, name: str) -> str | None:
        """A setting, or None."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)).scalar()
            return None if found is None else str(found)

    def set_settings(self, values: Mapping[str, str]) -> None:
        """Write settings together."""
        with self._writes() as connection:
            self._set(connection, values)

    def state(self) -> StoreState:
        """Which generation the database names, and how much was written."""
        with self._engine.connect() as connection:
            return state_of(connection)

    def set_points(self, documents: Mapping[str, str]) -> None:
        """Keep operating points, as JSON by id."""
        with self._writes() as connection:
            self._set_points(connection, documents)

    def points(self) -> dict[str, str]:
        """Operating points as JSON by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(POINTS.c.id, POINTS.c.document)).all()
            return {row.id: row.document for row in rows}

    @property
    def file(self) -> Path | None:
        """The SQLite file, None for another database."""
        return self._file

    def copy_to(self, file: Path) -> None:
        """Write all there is, as of one moment, into a new SQLite file."""
        engine = open_database(file)
        with self._engine.connect() as source, engine.begin() as target:
            copy_tables(source, target)
        engine.dispose()

    def fill_from(self, file: Path) -> None:
        """Take over all there is in the SQLite file of a store."""
        engine = open_database(file)
        with engine.connect() as source, self._writes() as target:
            copy_tables(source, target)
        engine.dispose()
        self.reload()

    def tidy(self) -> None:
        """Empty SQLite's write-ahead log, in which deleted rows may still lie, unless somebody reads it."""
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                raw = connection.connection.cursor()
                raw.execute("PRAGMA busy_timeout=0")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.invalidate()  # not to be used again without its patience

    def add_feedback(self, document: str, about: Sequence[str]) -> None:
        """Keep what was told about one or two items or about none; it goes when one of them is deleted."""
        a, b = [*about, None, None][:2]
        with self._writes() as connection:
            connection.execute(FEEDBACK.insert().values(a=a, b=b, document=document))

    def feedback(self) -> list[str]:
        """What was told, oldest first."""
        with self._engine.connect() as connection:
            documents = sa.select(FEEDBACK.c.document).order_by(FEEDBACK.c.number)
            return list(connection.execute(documents).scalars())

    def count_feedback(self) -> int:
        """How often something was told."""
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(FEEDBACK)).scalar_one())

    def add_report(self, document: str) -> None:
        """Keep a line of the history of reports."""
        with self._writes() as connection:
            connection.execute(REPORTS.insert().values(document=document))

    def reports(self) -> list[str]:
        """The history of reports, oldest first."""
        with self._engine.connect() as connection:
            documents = sa.select(REPORTS.c.document).order_by(REPORTS.c.number)
            return list(connection.execute(documents).scalars())

    @contextmanager
    def _writes(self) -> Iterator[sa.Connection]:
        """A transaction of the writer's own connection; on return it is on disk."""
        try:
            if self._writer is None or self._writer.invalidated:
                self._writer = self._locked()
            with self._writer.begin():
                yield self._writer
        except sa.exc.DBAPIError as error:
            raise StoreFailed(
                f"{self._name} did not take the write: {first_line(error)}. It was not acknowledged; "
                "send it again once the database can take it."
            ) from error

    def _locked(self) -> sa.Connection:
        """The writer's connection. A data folder has a lock file; a PostgreSQL schema is locked here."""
        connection = self._engine.connect().execution_options(writes=True)
        try:
            if not self._owned(connection):
                raise StoreInUse(
                    f"{self._name} is being written by another process: a database schema has one "
                    "writer. Stop the other, or give this one a database of its own."
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _owned(self, connection: sa.Connection) -> bool:
        if self._engine.dialect.name != "postgresql":
            return True
        key = sa.func.hashtext(sa.func.concat("limen writer ", sa.func.current_schema()))
        with connection.begin():
            return bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())

    def _set(self, connection: sa.Connection, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            statement = self._insert(SETTINGS).values(name=name, value=value)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )

    def _set_points(self, connection: sa.Connection, documents: Mapping[str, str]) -> None:
        for point_id, document in documents.items():
            statement = self._insert(POINTS).values(id=point_id, document=document)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"document": document})
            )


_STATE = sa.select(SETTINGS.c.name, SETTINGS.c.value).where(
    SETTINGS.c.name.in_(["generation", "sequence", "newest"])
)


def state_of(connection: sa.Connection) -> StoreState:
    """The state as one transaction sees it."""
    found = {row.name: row.value for row in connection.execute(_STATE)}
    return StoreState(found.get("generation"), int(found.get("sequence", 0)), int(found.get("newest", 0)))
