"""Interface of a database of the item store: opening, taking turns, hearing of changes, emptying its log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import sqlalchemy as sa

LOCK_SECONDS = 30.0  # a write waits so long for another program that holds the database
LOCK_SLICE = 0.2  # and looks so often whether it is still wanted


class Turn:
    """A turn that one process has until it closes it or ends; of a file, whose one process has every turn."""

    def take(self) -> bool:
        """Whether this process has it, now or since before; to be asked again for as long as it matters."""
        return True

    def close(self) -> None:
        """Leave it to others."""


class Database:
    """An open database, which has a commit on disk when it returns.

    Attributes:
        dialect: SQLAlchemy's name of its dialect.
        insert: its INSERT, which takes an ON CONFLICT clause.
        address_form: what its addresses look like, and what they need; "" if it has none.
        id_type: text that is compared and sorted by code point, as Python does.
        counter_type: a whole number that counts up by itself.
        engine: SQLAlchemy's engine.
        is_server: whether it is on a server, which several processes may write to, not a file.
    """

    dialect: ClassVar[str]
    insert: ClassVar[Any]
    address_form: ClassVar[str] = ""
    id_type: ClassVar[sa.types.TypeEngine[str]] = sa.Text()
    counter_type: ClassVar[sa.types.TypeEngine[int]] = sa.BigInteger()
    is_server: ClassVar[bool] = True
    engine: sa.Engine

    def __init__(self, where: Any, schema: str | None, *, read_only: bool) -> None:
        raise NotImplementedError

    @classmethod
    def is_address(cls, where: Path | str) -> bool:
        """Whether this is a file or an address of such a database."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Its name in error messages, without a password."""
        return hide_passwords(self.engine.url.render_as_string(hide_password=True))

    def prepare_migration(self, connection: sa.Connection) -> None:
        """In the transaction that makes or changes the tables: keep others out, make the schema."""

    def open_writer(self) -> sa.Connection:
        """The connection that this process writes with."""
        return self.engine.connect().execution_options(writes=True)

    def begin_write(
        self, connection: sa.Connection, check_wanted: Callable[[], None]
    ) -> AbstractContextManager[object]:
        """A transaction of the writer's connection, while no other writer has one.

        ``check_wanted`` raises once it is not wanted; ``LOCK_SECONDS`` are waited for others.
        """
        give_up = monotonic() + LOCK_SECONDS
        while True:
            check_wanted()
            try:
                return self.begin_in_turn(connection)
            except sa.exc.OperationalError as error:
                if not self.is_others_turn(error) or monotonic() > give_up:
                    raise

    def begin_in_turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """Begin a transaction; raises OperationalError after ``LOCK_SLICE`` of another writer's turn."""
        raise NotImplementedError

    def is_others_turn(self, error: sa.exc.OperationalError) -> bool:
        """Whether it was another writer's turn when a transaction was to begin."""
        raise NotImplementedError

    def announce(self, connection: sa.Connection) -> None:
        """Tell those that ``listen``, once this transaction is committed."""

    def listen(self) -> AbstractContextManager[Callable[[float], None]]:
        """Hear of the commits of all writers: a call waits for one, or so many seconds."""
        raise NotImplementedError

    def prepare_turn(self, name: str) -> Turn:
        """A turn at what the name says, which one process has at a time."""
        return Turn()

    @contextmanager
    def take_turn(self, name: str) -> Iterator[bool]:
        """Whether this process alone now does what the name says, until the block or the process ends."""
        turn = self.prepare_turn(name)
        try:
            yield turn.take()
        finally:
            turn.close()

    def empty_log(self) -> None:
        """Remove what was deleted from a write-ahead log."""


def get_first_line(error: Exception) -> str:
    """A driver's message, without the statement and what SQLAlchemy adds; never ends in a full stop."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def hide_passwords(address: str) -> str:
    """The address of a database without a password, whether or not it can be used."""
    hidden = re.sub(r"(?<=//)([^/@:?]*):[^?]*@", r"\1:***@", address)
    return re.sub(r"(?i)((?:^|[?&;\s])(?:ssl)?pass(?:word|wd)?=)[^&;\s]*", r"\1***", hidden)
