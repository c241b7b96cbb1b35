"""The tables of the item store, in a form that SQLite and PostgreSQL share."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

from common.errors import BundleError

METADATA = sa.MetaData()
# ids are compared and sorted by code point, as Python and SQLite do; PostgreSQL would by the language
ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
ROWS_AT_ONCE = 1_000
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # counts up by itself

ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),  # JSON
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float32, little-endian
    sa.Column("model_hash", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False, index=False),  # rises with every write
    sa.Index("items_by_sequence", "sequence"),
)
DELETIONS = sa.Table(
    "deletions",
    METADATA,
    sa.Column("id", ID, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)
FIELDS = sa.Table(
    "fields",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
)
POINTS = sa.Table(
    "operating_points",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
SETTINGS = sa.Table(
    "settings",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("a", ID, index=False),  # the items it is about, as far as they are items
    sa.Column("b", ID, index=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("feedback_by_a", "a"),
    sa.Index("feedback_by_b", "b"),
)
REPORTS = sa.Table(
    "reports",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("document", sa.Text, nullable=False),
)


def open_database(where: Path | str, schema: str | None = None, *, read_only: bool = False) -> sa.Engine:
    """A database that has a commit on disk when it returns, brought to the newest form unless read-only.

    Args:
        where: a SQLite file, or the address of a PostgreSQL database (``postgresql+psycopg://...``).
        schema: the schema the tables are in, for PostgreSQL.

    Raises:
        BundleError: it is no such database, or another version of Limen has written it.
    """
    try:
        engine = _sqlite(where, read_only) if isinstance(where, Path) else _postgresql(where, schema)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise BundleError(
            f"{where} cannot be used as an item store: {error}. Give postgresql+psycopg://USER@HOST/DATABASE "
            "and install psycopg."
        ) from None
    try:
        _migrate(engine, schema, read_only)
    except (sa.exc.DatabaseError, CommandError) as error:
        engine.dispose()
        raise BundleError(
            f"{engine.url!r} is not an item store that this version of Limen reads: {first_line(error)}."
        ) from None
    return engine


def first_line(error: Exception) -> str:
    """What a driver says, without the statement and what SQLAlchemy adds."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0]


def copy_tables(source: sa.Connection, target: sa.Connection) -> None:
    """Put the rows of one database in the place of another's; lists that count up are numbered anew."""
    for table in METADATA.sorted_tables:
        target.execute(table.delete())
        keys = [column for column in table.primary_key if column.type is not NUMBER]
        columns = [column for column in table.columns if column.type is not NUMBER]
        ordered = sa.select(*columns).order_by(*(keys or table.primary_key))
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(ordered)
        for some in rows.mappings().partitions():
            target.execute(table.insert(), [dict(row) for row in some])


def _sqlite(file: Path, read_only: bool) -> sa.Engine:
    address = f"file:{file.absolute()}?mode=ro&uri=true" if read_only else str(file)
    engine = sa.create_engine(f"sqlite:///{address}", connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def durable(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # the driver would begin only before the first write
        cursor = connection.cursor()
        if not read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        # what is deleted is overwritten, not left in free pages
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(address: str, schema: str | None) -> sa.Engine:
    engine = sa.create_engine(address, pool_pre_ping=True, isolation_level="REPEATABLE READ")
    if schema is None:
        return engine

    @sa.event.listens_for(engine, "connect")
    def into_schema(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f'SET search_path TO "{schema}"')
        cursor.close()
        connection.commit()

    return engine


def _migrate(engine: sa.Engine, schema: str | None, read_only: bool) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect().execution_options(writes=not read_only) as connection, connection.begin():
        if engine.dialect.name == "postgresql" and not read_only:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('limen migrations'))"))
            if schema is not None:
                connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        found = None
        if sa.inspect(connection).has_table("alembic_version"):
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if found == newest:
            return
        if read_only:
            raise CommandError(f"it is of form {found}, not {newest}; its writer has to open it first")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
