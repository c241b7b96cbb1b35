"""PostgreSQL: a schema for each model, whose writers, in any number of processes, take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from index.store.databases.database import LOCK_SECONDS, LOCK_SLICE, Database, Turn

# seconds to connect; milliseconds until what was sent must be acknowledged by the other machine
_TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 30_000}
IDLE_SECONDS = 15  # a writer that does nothing for so long within its transaction has its turn taken away
CHANNEL = "limen"
# the server gives up the session of a machine that is gone within some ten seconds, not two hours
_SOON_GONE = ("tcp_keepalives_idle = 5", "tcp_keepalives_interval = 2", "tcp_keepalives_count = 3")
_LOCKED = "55P03"  # SQLSTATE lock_not_available


class Postgresql(Database):
    """A schema of a PostgreSQL database."""

    dialect = "postgresql"
    insert = staticmethod(postgresql.insert)
    address_form = "postgresql+psycopg://USER@HOST/DATABASE and install psycopg"
    # PostgreSQL would compare by the database's language
    id_type: ClassVar[sa.types.TypeEngine[str]] = postgresql.TEXT(collation="C")

    def __init__(self, where: str, schema: str | None, *, read_only: bool) -> None:
        self._schema = schema
        given = sa.make_url(where).query
        self.engine = sa.create_engine(
            where,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            # a server that does not answer at all is away, too
            connect_args={name: value for name, value in _TIMEOUTS.items() if name not in given},
        )
        if schema is None:
            return

        @sa.event.listens_for(self.engine, "connect")
        def enter_schema(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
            cursor = connection.cursor()
            cursor.execute(f'SET search_path TO "{schema}"')
            cursor.close()
            connection.commit()

    @classmethod
    def is_address(cls, where: Path | str) -> bool:
        return isinstance(where, str) and where.startswith(cls.dialect)

    def prepare_migration(self, connection: sa.Connection) -> None:
        """One process at a time; the schema is made if need be."""
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('limen migrations'))"))
        if self._schema is not None:
            connection.execute(sa.schema.CreateSchema(self._schema, if_not_exists=True))

    def open_writer(self) -> sa.Connection:
        # each statement sees what was committed before its turn began; the turn keeps others out
        connection = super().open_writer().execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            connection.execute(sa.text(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"))
        return connection

    def begin_in_turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        transaction = connection.begin()
        try:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(1000 * LOCK_SLICE)}ms'"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_hash("limen writer "))))
            # a write waits so long for another program that holds its rows
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(LOCK_SECONDS)}s'"))
        except sa.exc.OperationalError:
            transaction.rollback()
            raise
        return transaction

    def is_others_turn(self, error: sa.exc.OperationalError) -> bool:
        return getattr(error.orig, "sqlstate", None) == _LOCKED

    def announce(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, sa.func.current_schema())))

    @contextmanager
    def listen(self) -> Iterator[Callable[[float], None]]:
        session = self.open_session()
        try:
            session.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver = session.connection.driver_connection
            assert driver is not None

            def wait(seconds: float) -> None:
                for _ in driver.notifies(timeout=seconds, stop_after=1):
                    pass

            yield wait
        finally:
            end_session(session)

    def prepare_turn(self, name: str) -> Turn:
        return _SessionTurn(self, name)

    def open_session(self) -> sa.Connection:
        """A session of its own, with which all that it has locked ends."""
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for setting in _SOON_GONE:
            connection.exec_driver_sql(f"SET {setting}")
        return connection


class _SessionTurn(Turn):
    """An advisory lock of a session: it ends with the session, and that with its process."""

    def __init__(self, database: Postgresql, name: str) -> None:
        self._database, self._name = database, name
        self._session: sa.Connection | None = None

    def take(self) -> bool:
        """Raises DBAPIError where the database is away; a turn that was had may be another's then."""
        if self._session is None:
            self._session = self._database.open_session()
        lock = sa.func.pg_try_advisory_lock(_hash(f"{self._name} "))
        try:
            return bool(self._session.execute(sa.select(lock)).scalar())
        except sa.exc.DBAPIError:
            self.close()
            raise

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            end_session(session)


def end_session(session: sa.Connection) -> None:
    """End a session, rather than keep it for others."""
    with suppress(sa.exc.DBAPIError):
        session.invalidate()
    session.close()


def _hash(name: str) -> sa.ColumnElement[int]:
    """The number of a lock of the current schema."""
    return sa.func.hashtextextended(sa.func.concat(name, sa.func.current_schema()), 0)
