"""What the processes of a service share beside the items of its models; a schema of its own on the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, NamedTuple

import sqlalchemy as sa

from index.store.change_log import ChangeLog
from index.store.databases.database import Database
from index.store.document_store import DocumentStore
from index.store.write_order import WriteOrder

SCHEMA = "limen_service"


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

    def read_or_add(self, name: str, value: str) -> str:
        """The value of a setting, which is this one if it had none."""
        with self._writing:
            return self._store.read_or_add_setting(name, value)

    def add_audit_lines(self, lines: Sequence[str]) -> None:
        """Keep lines about what is kept outside an item store."""
        with self._writing:
            self._store.add_audit_lines(lines)

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
