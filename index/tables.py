"""The tables of the item store, in a form that SQLite and PostgreSQL share."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from api_schemas.errors import BundleError

METADATA = sa.MetaData()

ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
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
    sa.Column("id", sa.Text, primary_key=True),
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


def open_database(file: Path) -> sa.Engine:
    """A SQLite database that is on disk when a commit returns, brought to the newest form.

    Raises:
        BundleError: the file is no such database, or a newer version of Limen has written it.
    """
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def durable(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        # what is deleted is overwritten, not left in free pages
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()

    try:
        _migrate(engine)
    except (sa.exc.DatabaseError, CommandError) as error:
        engine.dispose()
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise BundleError(
            f"{file} is not an item store that this version of Limen reads: {reason}."
        ) from None
    return engine


def _migrate(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            if found == newest:
                return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
