"""What differs between databases: how one is opened, locked and kept tidy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa


class Database:
    """An open database, which has a commit on disk when it returns.

    Attributes:
        dialect: SQLAlchemy's name of it.
        insert: its INSERT, which can be told what to do on a conflict.
        address_form: what its addresses look like, and what they need; "" if it has none.
        id_type: text that is compared and sorted by code point, as Python does.
        counter_type: a whole number that counts up by itself.
        engine: SQLAlchemy's engine.
        file: the file that holds it; None for one on a server.
    """

    dialect: ClassVar[str]
    insert: ClassVar[Any]
    address_form: ClassVar[str] = ""
    id_type: ClassVar[sa.types.TypeEngine[str]] = sa.Text()
    counter_type: ClassVar[sa.types.TypeEngine[int]] = sa.BigInteger()
    engine: sa.Engine
    file: Path | None = None

    def __init__(self, where: Any, schema: str | None, *, read_only: bool) -> None:
        raise NotImplementedError

    @classmethod
    def is_address(cls, where: Path | str) -> bool:
        """Whether this is a file or an address of such a database."""
        raise NotImplementedError

    def __str__(self) -> str:
        """As error messages call it, without a password."""
        return repr(self.engine.url) if self.file is None else str(self.file)

    def prepare_migration(self, connection: sa.Connection) -> None:
        """In the transaction that makes or changes the tables: keep others out, make the schema."""

    def try_lock_writer(self, connection: sa.Connection) -> bool:
        """Lock out other writers for as long as the connection is open; False if there is one."""
        return True

    def empty_log(self) -> None:
        """Remove what was deleted from a write-ahead log."""


def first_line(error: Exception) -> str:
    """What a driver says, without the statement and what SQLAlchemy adds."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
