"""A database server brought to the newest form of tables, before services of a new version use it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import sqlalchemy as sa

from index.store.open_database import open_database
from index.store.shared.records import SCHEMA, SharedRecords


def prepare_server(address: str) -> list[str]:
    """Make the tables that services share, and bring those of every model to the newest form.

    Each schema is one transaction, and one process at a time does it; returns the schemas' names.

    Raises:
        BundleError: the server cannot be reached, or a newer version of Limen has written there.
    """
    with closing(SharedRecords(address)) as shared:
        engine = shared.database.engine
        named: sa.Select[Any] = sa.select(sa.column("schema_name", sa.String)).select_from(
            sa.table("schemata", schema="information_schema")
        )
        with engine.connect() as connection:
            names: list[str] = list(connection.execute(named).scalars())
    models = sorted(name for name in names if name.startswith("limen_") and name != SCHEMA)
    for name in models:
        open_database(address, name).engine.dispose()
    return [SCHEMA, *models]
