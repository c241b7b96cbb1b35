"""PostgreSQL: a schema for each model, locked by its writer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from index.store.databases.database import Database

# seconds to connect; milliseconds until what was sent must be acknowledged by the other machine
_TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 30_000}


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

    def try_lock_writer(self, connection: sa.Connection) -> bool:
        key = sa.func.hashtext(sa.func.concat("limen writer ", sa.func.current_schema()))
        with connection.begin():
            # a write waits so long for another program that holds its rows
            connection.execute(sa.text("SET lock_timeout = '30s'"))
            return bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())
