"""Idempotency keys: a write that is sent again is answered again, and carried out once.

The key is kept in the transaction of the write itself, so that it is known if and only if the write was
carried out; the answer is added afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import NamedTuple

import sqlalchemy as sa

from common.errors import LimenError
from index.store.tables import REPLIES

KEPT_SECONDS = 24 * 3600.0
MOST_KEPT = 100_000  # keys; beyond, the oldest are forgotten
_PRUNE_EVERY = 256  # keys between two looks at how many there are
_C = REPLIES.c


class AlreadyDone(LimenError):
    """A write with this key was carried out before; this one was not."""


class Reply(NamedTuple):
    """What is known of a key: the request that it came with, and its answer, None while there is none yet."""

    request: str
    status: int | None
    body: bytes | None


@dataclass
class IdempotencyKey:
    """The key of a request on its way to the store.

    Attributes:
        key: of the client, hashed with whose it is.
        request: a hash of what was asked.
        is_kept: whether the write was carried out, and the key with it.
        is_known: whether a write with this key was carried out before.
    """

    key: str
    request: str
    is_kept: bool = False
    is_known: bool = False

    def claim(self, connection: sa.Connection) -> None:
        """Keep the key in the transaction of its write; raises AlreadyDone."""
        now = time()
        connection.execute(REPLIES.delete().where(_C.at < now - KEPT_SECONDS))
        if select_reply(connection, self.key) is not None:
            self.is_known = True
            raise AlreadyDone("A write with this Idempotency-Key was carried out before.")
        connection.execute(REPLIES.insert().values(key=self.key, request=self.request, at=now))
        if int(self.key[:8], 16) % _PRUNE_EVERY == 0:
            oldest = sa.select(_C.at).order_by(_C.at.desc()).offset(MOST_KEPT).limit(1).scalar_subquery()
            connection.execute(REPLIES.delete().where(_C.at <= oldest))


def select_reply(connection: sa.Connection, key: str) -> Reply | None:
    """What is known of a key."""
    row = connection.execute(sa.select(_C.request, _C.status, _C.body).where(_C.key == key)).one_or_none()
    return None if row is None else Reply(row[0], row[1], None if row[2] is None else bytes(row[2]))
