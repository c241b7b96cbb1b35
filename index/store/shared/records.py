"""What the processes of a service share beside the items of its models; a schema of its own on the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, NamedTuple

import sqlalchemy as sa

from index.store.change_log import ChangeLog, Topic
from index.store.databases.database import Database, Turn
from index.store.document_store import DocumentStore
from index.store.tables import SETTINGS
from index.store.write_order import WriteOrder

SCHEMA = "limen_service"
READINGS = "readings."  # settings: the latest readings of each process


class Choice(NamedTuple):
    """The active version, the one before, and those that every process is to have loaded."""

    version: str | None
    previous: str | None
    loaded: tuple[str, ...]


class SharedRecords:
    """Every method is one transaction; on return what was written is on disk, and the others hear of it."""

    def __init__(self, address: str) -> None:
        """Raises BundleError where the database cannot be reached or used."""
        self._store = DocumentStore(address, SCHEMA)
        self._writing = Lock()

    @property
    def database(self) -> Database:
        """The database, to listen to and to take turns in."""
        return self._store.database

    def read_log(self) -> ChangeLog:
        """The last changes."""
        return self._store.read_log()

    def read_choice(self) -> Choice:
        """What was activated and loaded last, by any process."""
        loaded = self._store.read_setting("loaded")
        version, previous = self._store.read_setting("version"), self._store.read_setting("previous")
        return Choice(version, previous, tuple(json.loads(loaded)) if loaded else ())

    def choose(self, version: str, previous: str, order: WriteOrder) -> None:
        """Activate a version in every process; the one before stays loaded, to go back to."""
        loaded = json.dumps(sorted({version, previous}))
        values = {"version": version, "previous": previous, "loaded": loaded}
        with self._writing:
            self._store.set_settings(values, order, "choice")

    def add_loaded(self, version: str) -> None:
        """Have every process load a version."""
        loaded = json.dumps(sorted({*self.read_choice().loaded, version}))
        with self._writing:
            self._store.set_settings({"loaded": loaded}, None, "choice")

    def read_setting(self, name: str) -> str | None:
        """A setting, or None."""
        return self._store.read_setting(name)

    def edit_setting(self, name: str, edit: Callable[[str | None], str], topic: Topic) -> None:
        """Change a setting, given what it is; of several that do so at once none is lost."""
        with self.begin_write() as connection:
            statement = sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)
            self._store._set(connection, {name: edit(connection.execute(statement).scalar())})
            self._store._topics.add(topic)

    def read_or_add(self, name: str, value: str) -> str:
        """The value of a setting, which is this one if it had none."""
        with self._writing:
            return self._store.read_or_add_setting(name, value)

    def add_audit_lines(self, lines: Sequence[str]) -> None:
        """Keep lines about what is kept outside an item store."""
        with self._writing:
            self._store.add_audit_lines(lines)

    def prepare_turn(self, name: str) -> Turn:
        """A turn to take again and again, and to keep."""
        return self.database.prepare_turn(name)

    def exchange_readings(self, name: str, document: str, now: float, fresh: float) -> list[str]:
        """Keep a process's readings under its name; returns those of the others of the last seconds."""
        is_reading = SETTINGS.c.name.startswith(READINGS, autoescape=True)
        with self.begin_write() as connection:
            rows = connection.execute(sa.select(SETTINGS.c.name, SETTINGS.c.value).where(is_reading)).all()
            others = {row.name: json.loads(row.value) for row in rows if row.name != READINGS + name}
            gone = [other for other, kept in others.items() if now - kept["at"] > fresh]
            if gone:
                connection.execute(SETTINGS.delete().where(SETTINGS.c.name.in_(gone)))
            value = json.dumps({"at": now, "document": document})
            self._store._set(connection, {READINGS + name: value})
        return [kept["document"] for other, kept in others.items() if other not in gone]

    def read_rows(self, statement: sa.Select[Any]) -> list[Any]:
        """The rows of a query."""
        return self._store.read_rows(statement)

    @contextmanager
    def begin_write(self) -> Iterator[sa.Connection]:
        """A transaction, one at a time; on return it is on disk."""
        with self._writing, self._store._begin_write() as connection:
            yield connection

    def take_turn(self, name: str) -> AbstractContextManager[bool]:
        """Whether this process alone now does what the name says, until the block or the process ends."""
        return self.database.take_turn(name)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()
