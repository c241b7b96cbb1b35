"""Documents and settings in a database, the writer's lock, and the state that readers watch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from common.errors import LimenError
from index.items.columns import ColumnKind
from index.store.databases.database import first_line
from index.store.open_database import open_database
from index.store.tables import FEEDBACK, FIELDS, POINTS, REPORTS, SETTINGS, copy_tables


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


class DocumentStore:
    """Settings, operating points, feedback and the history of reports; one writer, readers at any time.

    Args:
        where: a SQLite file, or the address of a database server.
        schema: the schema of the tables, on a server; it is made if need be.
        read_only: take no writes, and do not count as the writer.

    Raises:
        StoreInUse: another process writes to the same schema.
        BundleError: it is no item store, or of another version.
    """

    def __init__(self, where: Path | str, schema: str | None = None, *, read_only: bool = False) -> None:
        self._database = open_database(where, schema, read_only=read_only)
        self._engine = self._database.engine
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
            self.sequence = read_state(connection).newest

    def close(self) -> None:
        """Close the connections, and let go of the database."""
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def setting(self, name: str) -> str | None:
        """A setting, or None."""
        with self._engine.connect() as connection:
            value = connection.execute(sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)).scalar()
            return None if value is None else str(value)

    def set_settings(self, values: Mapping[str, str]) -> None:
        """Write settings together."""
        with self._writes() as connection:
            self._set(connection, values)

    def state(self) -> StoreState:
        """Which generation the database names, and how much was written."""
        with self._engine.connect() as connection:
            return read_state(connection)

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
        """The file that holds the database; None for one on a server."""
        return self._database.file

    def copy_to(self, file: Path) -> None:
        """Write all there is, as of one moment, into a new SQLite file."""
        engine = open_database(file).engine
        with self._engine.connect() as source, engine.begin() as target:
            copy_tables(source, target)
        engine.dispose()

    def fill_from(self, file: Path) -> None:
        """Take over all there is in the SQLite file of a store."""
        engine = open_database(file).engine
        with engine.connect() as source, self._writes() as target:
            copy_tables(source, target)
        engine.dispose()
        self.reload()

    def empty_log(self) -> None:
        """Remove deleted rows from a write-ahead log."""
        self._database.empty_log()

    def add_feedback(self, document: str, about: Sequence[str]) -> None:
        """Keep feedback about one or two items or about none; it goes when one of them is deleted."""
        a, b = [*about, None, None][:2]
        with self._writes() as connection:
            connection.execute(FEEDBACK.insert().values(a=a, b=b, document=document))

    def feedback(self) -> list[str]:
        """The feedback, oldest first."""
        with self._engine.connect() as connection:
            documents = sa.select(FEEDBACK.c.document).order_by(FEEDBACK.c.number)
            return list(connection.execute(documents).scalars())

    def count_feedback(self) -> int:
        """How many entries of feedback there are."""
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
                self._writer = self._lock_writer()
            with self._writer.begin():
                yield self._writer
        except sa.exc.DBAPIError as error:
            raise StoreFailed(
                f"{self._database} did not take the write: {first_line(error)}. It was not acknowledged; "
                "send it again once the database can take it."
            ) from error

    def _lock_writer(self) -> sa.Connection:
        """The writer's connection. A data folder has a lock file; a schema on a server is locked here."""
        connection = self._engine.connect().execution_options(writes=True)
        try:
            if not self._database.try_lock_writer(connection):
                raise StoreInUse(
                    f"{self._database} is being written by another process: a database schema has one "
                    "writer. Stop the other, or give this one a database of its own."
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _set(self, connection: sa.Connection, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            statement = self._database.insert(SETTINGS).values(name=name, value=value)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )

    def _set_points(self, connection: sa.Connection, documents: Mapping[str, str]) -> None:
        for point_id, document in documents.items():
            statement = self._database.insert(POINTS).values(id=point_id, document=document)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["id"], set_={"document": document})
            )


_STATE = sa.select(SETTINGS.c.name, SETTINGS.c.value).where(
    SETTINGS.c.name.in_(["generation", "sequence", "newest"])
)


def read_state(connection: sa.Connection) -> StoreState:
    """The state as one transaction sees it."""
    values = {row.name: row.value for row in connection.execute(_STATE)}
    return StoreState(values.get("generation"), int(values.get("sequence", 0)), int(values.get("newest", 0)))
