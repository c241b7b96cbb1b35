"""SQLite: one file in the data folder, whose lock file keeps other writers out."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from common.private_files import close_to_others, open_private
from index.store.databases.database import LOCK_SECONDS, LOCK_SLICE, Database


class Sqlite(Database):
    """A SQLite file that overwrites what is deleted."""

    dialect = "sqlite"
    is_server = False
    insert = staticmethod(sqlite.insert)
    counter_type: ClassVar[sa.types.TypeEngine[int]] = sa.Integer()

    def __init__(self, where: Path, schema: str | None, *, read_only: bool) -> None:
        self._file = where
        if not read_only:
            # SQLite gives the files of its log the rights of this one
            with suppress(OSError):  # SQLite says better what is wrong
                open_private(where, "ab").close()
            for ending in ("", "-wal", "-shm"):
                close_to_others(where.with_name(where.name + ending))
        address = f"file:{where.absolute()}?mode=ro&uri=true" if read_only else str(where)
        self.engine = sa.create_engine(f"sqlite:///{address}", connect_args={"timeout": LOCK_SECONDS})

        @sa.event.listens_for(self.engine, "connect")
        def make_durable(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
            connection.isolation_level = None  # the driver would begin only before the first write
            cursor = connection.cursor()
            if not read_only:
                cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            # what is deleted is overwritten, not left in free pages
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.close()

        @sa.event.listens_for(self.engine, "begin")
        def begin(connection: sa.Connection) -> None:
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @classmethod
    def is_address(cls, where: Path | str) -> bool:
        return isinstance(where, Path)

    def __str__(self) -> str:
        return str(self._file)

    def open_writer(self) -> sa.Connection:
        connection = super().open_writer()
        # not through SQLAlchemy, which would begin a transaction first, and wait with the old timeout
        connection.connection.cursor().execute(f"PRAGMA busy_timeout={int(1000 * LOCK_SLICE)}")
        return connection

    def begin_in_turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        return connection.begin()

    def is_others_turn(self, error: sa.exc.OperationalError) -> bool:
        return "locked" in str(error.orig)

    def empty_log(self) -> None:
        """Empty the write-ahead log, in which deleted rows may still lie, unless a reader is on it."""
        with self.engine.connect() as connection:
            raw = connection.connection.cursor()
            raw.execute("PRAGMA busy_timeout=0")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.invalidate()  # not to be used again without its timeout
