"""A database opened as an item store: connected, and its tables brought to the newest form."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from common.errors import BundleError
from index.store.databases import DATABASES
from index.store.databases.database import Database, get_first_line, hide_passwords

_UPGRADING = Lock()  # alembic keeps what it works on in its module


def open_database(where: Path | str, schema: str | None = None, *, read_only: bool = False) -> Database:
    """Connect to an item store; unless read-only its tables are made, or brought to the newest form.

    Args:
        where: a SQLite file, or the address of a database server (``postgresql+psycopg://...``).
        schema: the schema the tables are in, on a server.

    Raises:
        BundleError: it is no such database, its server is away, or another version of Limen has written it.
    """
    database = _connect(where, schema, read_only)
    try:
        _migrate(database, read_only)
    except (sa.exc.DBAPIError, CommandError) as error:
        database.engine.dispose()
        if database.is_server and isinstance(error, sa.exc.OperationalError):
            raise BundleError(
                f"{database} is not an item store that can be reached: {get_first_line(error)}. Check that "
                "the server runs, and the host, port, user and password of the address."
            ) from None
        raise BundleError(
            f"{database} is not an item store that this version of Limen reads: {get_first_line(error)}."
        ) from None
    return database


def _connect(where: Path | str, schema: str | None, read_only: bool) -> Database:
    reason: object = "it is the address of no known database"
    for database in DATABASES:
        if database.is_address(where):
            try:
                _check_password(where)
                return database(where, schema, read_only=read_only)
            except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError) as error:
                reason = error
    forms = " or ".join(database.address_form for database in DATABASES if database.address_form)
    raise BundleError(
        f"{hide_passwords(str(where))} cannot be used as an item store: {hide_passwords(str(reason))}. "
        f"Give {forms}."
    )


def _check_password(where: Path | str) -> None:
    """Raises ValueError for a password whose end would be read, and printed, as a host."""
    before = str(where).partition("?")[0].partition("://")[2]
    user, _, _ = before.rpartition("@")
    if not isinstance(where, Path) and ("@" in user or "/" in user):
        raise ValueError("in a password, @ is written %40 and / is written %2F")


def _migrate(database: Database, read_only: bool) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with database.engine.connect().execution_options(writes=not read_only) as connection, connection.begin():
        if not read_only:
            database.prepare_migration(connection)
        version = None
        if sa.inspect(connection).has_table("alembic_version"):
            version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if version == newest:
            return
        if read_only:
            raise CommandError(f"it is of form {version}, not {newest}; its writer has to open it first")
        config.attributes["connection"] = connection
        with _UPGRADING:
            command.upgrade(config, "head")
