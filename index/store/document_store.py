"""Documents and settings in a database, writes to it, and the state that readers watch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Any, NamedTuple

import sqlalchemy as sa

from api_schemas.base import Schema
from common.errors import LimenError
from index.items.columns import ColumnKind, FieldUse
from index.store.change_log import CHANGE, ChangeLog, Topic, name_topic, select_log
from index.store.databases.database import get_first_line
from index.store.idempotency import IdempotencyKey, Reply, select_reply
from index.store.kept_queries import Verdict
from index.store.open_database import open_database
from index.store.tables import AUDIT, FEEDBACK, FIELDS, ITEMS, POINTS, REPLIES, SETTINGS, copy_tables
from index.store.unknown_changes import set_verdict
from index.store.write_order import AuditFile, WriteOrder

LOGGER = logging.getLogger("limen.index")


class StoreInUse(LimenError):
    """A second writer tried to open a data folder."""


class StoreFailed(LimenError):
    """The database could not take a write, for instance because the disk is full; it was not acknowledged."""


class StoreUnavailable(LimenError):
    """The database could not be read, for instance because its server is away."""


class StoreState(NamedTuple):
    """State of a store: generation, base and newest sequence number.

    ``generation`` holds everything up to the sequence number ``base`` (None: the bundle's own files do);
    ``newest`` is the sequence number of the last write.
    """

    generation: str | None
    base: int
    newest: int


class BuiltGeneration(Schema):
    """``current.json`` of a folder whose items are on a server: its generation, and what that holds."""

    generation: str | None
    sequence: int


class FeedbackRow(NamedTuple):
    """A piece of feedback: its number, which rises, what it is about, and its JSON."""

    number: int
    subject: str
    document: str


class DocumentStore:
    """Settings, operating points, feedback and the history of reports.

    The tables are made if need be, see ``open_database``. What the database cannot take raises StoreFailed,
    and what it cannot answer StoreUnavailable. A write that was ordered with a line for the audit log keeps
    that line in its own transaction. A file has one writer, and the line is moved to the log's file
    afterwards. On a server several processes write, one at a time; each write has a number (``ChangeLog``)
    under which its line stays there.

    Args:
        read_only: take no writes.
        built: the file that says which generation this process searches, where the items are on a server;
            in a file of its own the database says so itself.
    """

    def __init__(
        self,
        where: Path | str,
        schema: str | None = None,
        *,
        read_only: bool = False,
        built: Path | None = None,
    ) -> None:
        self.database = open_database(where, schema, read_only=read_only)
        self._engine = self.database.engine
        self._built = built
        self._topics: set[Topic] = set()  # of the transaction in progress
        self._writer: sa.Connection | None = None
        self._audit_file: AuditFile | None = None
        self._unlogged: list[tuple[int, str]] = []  # lines that the audit log's file does not hold yet
        self._logged: int | None = None  # the file holds the lines up to this number
        try:
            if not read_only:
                self._writer = self.database.open_writer()
            self._fields: dict[str, FieldUse] = {}
            self.sequence = 0
            self.reload()
        except BaseException:
            self.close()
            raise

    @property
    def fields(self) -> dict[str, ColumnKind]:
        """The metadata fields that any item has, with their kinds."""
        return {name: use.kind for name, use in self._fields.items()}

    def reload(self) -> None:
        """Read again what is remembered of the database."""
        with self._read() as connection:
            self._remember(connection, select_state(connection).newest)

    def _remember(self, connection: sa.Connection, newest: int) -> None:
        rows = connection.execute(sa.select(FIELDS.c.name, FIELDS.c.kind, FIELDS.c.n_items)).all()
        self._fields = {row.name: FieldUse(row.kind, row.n_items) for row in rows}
        self.sequence = newest

    def check_reachable(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        self.read_state()

    def set_audit_file(self, file: AuditFile) -> None:
        """Keep the audit log's file up with the writes; what a crash left out is added first.

        On a server the database itself is the log of all processes.
        """
        if self.database.is_server:
            return
        self._audit_file = file
        with self._read() as connection:
            rows = connection.execute(sa.select(AUDIT.c.number, AUDIT.c.line).order_by(AUDIT.c.number)).all()
            self._unlogged = [(row.number, row.line) for row in rows]
        self._move_audit_lines(file.append_missing)

    def forget_audit_lines(self) -> None:
        """Remove the lines that the audit log's file holds from the database."""
        if self._logged is not None:
            with suppress(LimenError), self._begin_write():
                pass

    def close(self) -> None:
        """Close the connections, and release the database."""
        self.forget_audit_lines()
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def read_setting(self, name: str) -> str | None:
        return next(iter(self._read_column(sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name))), None)

    def set_settings(
        self, values: Mapping[str, str], order: WriteOrder | None = None, topic: Topic | None = None
    ) -> None:
        with self._begin_write(order) as connection:
            self._set(connection, values)
            self._topics |= set() if topic is None else {topic}

    def read_or_add_setting(self, name: str, value: str) -> str:
        """The value of a setting, which is this one if it had none."""
        with self._begin_write() as connection:
            statement = sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)
            known = connection.execute(statement).scalar()
            if known is None:
                self._set(connection, {name: value})
            return str(value if known is None else known)

    def add_audit_lines(self, lines: Sequence[str]) -> None:
        """Keep lines that are about no write of this store."""
        for line in lines:
            with self._begin_write(WriteOrder(json.loads(line))):
                pass

    def read_reply(self, key: str) -> Reply | None:
        """What is known of an idempotency key."""
        with self._read() as connection:
            return select_reply(connection, key)

    def keep_answer(self, key: IdempotencyKey, status: int, body: bytes) -> None:
        """Keep the answer to the write that a key came with."""
        values = {"key": key.key, "request": key.request, "at": time(), "status": status, "body": body}
        with self._begin_write() as connection:
            self._upsert(connection, REPLIES, [values])

    def read_state(self) -> StoreState:
        """The state now."""
        with self._read() as connection:
            return self._select_state(connection)

    def read_log(self) -> ChangeLog:
        """The last changes now; of a database on a server."""
        with self._read() as connection:
            return select_log(connection)

    def _select_state(self, connection: sa.Connection) -> StoreState:
        """The state as one transaction sees it, with the generation that this process searches."""
        state = select_state(connection)
        if self._built is None or not self._built.exists():
            return state
        built = BuiltGeneration.load(self._built)
        return StoreState(built.generation, built.sequence, state.newest)

    def set_points(self, documents: Mapping[str, str], order: WriteOrder | None = None) -> None:
        """Keep operating points, as JSON by id."""
        with self._begin_write(order) as connection:
            self._set_points(connection, documents)
            self._topics.add("points")

    def read_points(self) -> dict[str, str]:
        """Operating points as JSON by id."""
        with self._read() as connection:
            rows = connection.execute(sa.select(POINTS.c.id, POINTS.c.document)).all()
            return {row.id: row.document for row in rows}

    def copy_to(self, file: Path) -> None:
        """Write all there is, as of one moment, into a new SQLite file."""
        engine = open_database(file).engine
        with self._engine.connect() as source, engine.begin() as target:
            copy_tables(source, target)
            if self._built is not None:  # the copy is of one process, which has a generation
                state = self._select_state(source)
                target.execute(SETTINGS.delete().where(SETTINGS.c.name.in_(["generation", "sequence"])))
                values = {"generation": state.generation, "sequence": str(state.base)}
                rows = [{"name": name, "value": value} for name, value in values.items() if value is not None]
                target.execute(SETTINGS.insert(), rows)
        engine.dispose()

    def fill_from(self, file: Path) -> None:
        """Take over all there is in the SQLite file of a store, unless another process has begun this one."""
        engine = open_database(file).engine
        with engine.connect() as source, self._begin_write() as target:
            if not self._is_begun(target):
                copy_tables(source, target)
        engine.dispose()
        self.reload()

    def add_document(self, table: sa.Table, document: str, **columns: str | None) -> None:
        """Keep feedback, which goes when an item is deleted that its columns name, or a report."""
        with self._begin_write() as connection:
            connection.execute(table.insert().values(document=document, **columns))

    def set_feedback(
        self,
        subject: str,
        document: str,
        order: WriteOrder | None,
        verdict: Verdict,
        **about: str | None,
    ) -> None:
        """Keep the one verdict about a decision or pair, in place of an earlier one.

        A query in the pool of unknowns that the decision was about gets the verdict in the same transaction.
        """
        values = {"document": document, **about}
        with self._begin_write(order) as connection:
            if about.get("not_label") is not None or self._is_correction(connection, subject):
                self._topics.add("corrections")
            added = self.database.insert(FEEDBACK).values(subject=subject, **values)
            connection.execute(added.on_conflict_do_update(index_elements=[FEEDBACK.c.subject], set_=values))
            set_verdict(connection, subject, verdict)

    def delete_feedback(self, subject: str, order: WriteOrder | None) -> bool:
        """Take back the verdict about a decision or pair; whether there was one."""
        with self._begin_write(order) as connection:
            if self._is_correction(connection, subject):
                self._topics.add("corrections")
            gone = connection.execute(FEEDBACK.delete().where(FEEDBACK.c.subject == subject)).rowcount
            set_verdict(connection, subject, None)
        return bool(gone)

    def read_feedback_page(self, before: int | None, limit: int, *, corrections: bool) -> list[FeedbackRow]:
        """Feedback before a number, newest first; corrections alone if wanted."""
        columns = sa.select(FEEDBACK.c.number, FEEDBACK.c.subject, FEEDBACK.c.document)
        if before is not None:
            columns = columns.where(FEEDBACK.c.number < before)
        if corrections:
            columns = columns.where(FEEDBACK.c.not_label.is_not(None))
        with self._read() as connection:
            rows = connection.execute(columns.order_by(FEEDBACK.c.number.desc()).limit(limit))
            return [FeedbackRow(*row) for row in rows]

    def count_corrections(self) -> int:
        """How many pieces of feedback are corrections."""
        statement = sa.select(sa.func.count()).select_from(FEEDBACK).where(FEEDBACK.c.not_label.is_not(None))
        return int(self._read_column(statement)[0])

    def read_documents(self, table: sa.Table) -> list[str]:
        """Feedback or reports, oldest first."""
        return self._read_column(sa.select(table.c.document).order_by(table.c.number))

    def write_rows(
        self,
        table: sa.Table,
        rows: Sequence[Mapping[str, Any]],
        stale: sa.ColumnElement[bool] | None = None,
        order: WriteOrder | None = None,
    ) -> None:
        """Insert rows or replace those with the same key, then delete the rows that a condition holds for."""
        with self._begin_write(order) as connection:
            self._upsert(connection, table, rows)
            if stale is not None:
                connection.execute(table.delete().where(stale))

    def read_rows(self, statement: sa.Select[Any]) -> list[Any]:
        """The rows of a query."""
        with self._read() as connection:
            return list(connection.execute(statement).all())

    def count(self, table: sa.Table = ITEMS) -> int:
        """Number of items, or of rows of another table."""
        return int(self._read_column(sa.select(sa.func.count()).select_from(table))[0])

    def _read_column(self, statement: sa.Select[Any]) -> list[Any]:
        with self._read() as connection:
            return list(connection.execute(statement).scalars())

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """A connection that sees the database as of its first statement; it waits for no writer."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise StoreUnavailable(
                f"The item store cannot be read ({self.database}): {get_first_line(error)}."
            ) from error

    @contextmanager
    def _begin_write(self, order: WriteOrder | None = None) -> Iterator[sa.Connection]:
        """A transaction of the writer's own connection; on return it is on disk.

        Raises Withdrawn, and leaves everything as it was, if the order was withdrawn before the commit.
        """
        order, added, log = order or WriteOrder(), None, None
        try:
            if self._writer is None or self._writer.invalidated:
                self._writer = self.database.open_writer()
            with self.database.begin_write(self._writer, order.check_wanted):
                self._topics.clear()
                if self.database.is_server:
                    log = select_log(self._writer)
                    if log.newest != self.sequence:  # another process has written
                        self._remember(self._writer, log.newest)
                if self._logged is not None:
                    self._writer.execute(AUDIT.delete().where(AUDIT.c.number <= self._logged))
                if order.key is not None:
                    order.key.claim(self._writer)
                yield self._writer
                line = order.build_audit_line()
                if log is not None:
                    self._number_change(self._writer, log.change + 1, line)
                elif line is not None:
                    inserted = self._writer.execute(
                        AUDIT.insert().values(line=line).returning(AUDIT.c.number)
                    )
                    added = int(inserted.scalar_one()), line
                order.begin_commit()
        except sa.exc.DBAPIError as error:
            raise StoreFailed(
                f"{self.database} did not take the write: {get_first_line(error)}. It was not acknowledged; "
                "send it again once the database can take it."
            ) from error
        self._logged = None
        if order.key is not None:
            order.key.is_kept = True
        if added is not None:
            self._unlogged.append(added)
        if self._audit_file is not None:
            self._move_audit_lines(self._audit_file.append)

    def _number_change(self, connection: sa.Connection, number: int, line: str | None) -> None:
        """Give a write its number, in its transaction, and tell those that follow."""
        names = [CHANGE, *(name_topic(topic) for topic in self._topics)]
        self._set(connection, dict.fromkeys(names, str(number)))
        if line is not None:
            connection.execute(AUDIT.insert().values(number=number, line=line))
        self.database.announce(connection)

    def _is_begun(self, connection: sa.Connection) -> bool:
        """Whether a process has filled the store."""
        statement = sa.select(SETTINGS.c.value).where(SETTINGS.c.name == "model_hash")
        return connection.execute(statement).scalar() is not None

    def _is_correction(self, connection: sa.Connection, subject: str) -> bool:
        statement = sa.select(FEEDBACK.c.not_label).where(FEEDBACK.c.subject == subject)
        return connection.execute(statement).scalar() is not None

    def _move_audit_lines(self, append: Callable[[Sequence[str]], None]) -> None:
        """Add to the audit log's file what it lacks; if it cannot be written the lines are kept."""
        if not self._unlogged:
            return
        try:
            append([line for _, line in self._unlogged])
        except OSError as error:
            LOGGER.error("the audit log cannot be written, its lines are kept in the item store: %s", error)
            return
        self._logged, self._unlogged = self._unlogged[-1][0], []

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
