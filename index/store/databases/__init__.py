"""The databases an item store can be kept in: a database is one class and one line in ``DATABASES``."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from common.errors import BundleError
from index.store.databases.database import Database
from index.store.databases.postgresql import Postgresql
from index.store.databases.sqlite import Sqlite

DATABASES: tuple[type[Database], ...] = (Sqlite, Postgresql)


def connect(where: Path | str, schema: str | None = None, *, read_only: bool = False) -> Database:
    """The database at a file or address; raises BundleError for an address that cannot be used."""
    reason: object = "it is the address of no database that is known here"
    for database in DATABASES:
        if database.is_address(where):
            try:
                return database(where, schema, read_only=read_only)
            except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
                reason = error
    forms = " or ".join(database.address_form for database in DATABASES if database.address_form)
    raise BundleError(f"{where} cannot be used as an item store: {reason}. Give {forms}.")
