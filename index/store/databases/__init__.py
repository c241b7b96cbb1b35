"""The databases an item store can be kept in: a database is one class and one line in ``DATABASES``."""

from __future__ import annotations

from index.store.databases.database import Database
from index.store.databases.postgresql import Postgresql
from index.store.databases.sqlite import Sqlite

DATABASES: tuple[type[Database], ...] = (Sqlite, Postgresql)
