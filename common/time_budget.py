"""A time by which the work of a thread must be done, checked by the loops that may take long.

Work on behalf of a client is not worth finishing once the client has been told that it took too long. A
thread cannot be stopped from outside, so the loops over images, conditions and blocks of rows ask whether
there is time left. Where no time was set, there always is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from time import monotonic

_thread = local()


class OutOfTime(Exception):
    """The work was given up, because nobody waits for its result any more."""


@contextmanager
def limit_time(end: float) -> Iterator[None]:
    """Let the work of this thread be given up once ``monotonic()`` has passed ``end``."""
    before = getattr(_thread, "end", None)
    _thread.end = end
    try:
        yield
    finally:
        _thread.end = before


def check_time() -> None:
    """Raises OutOfTime once the work of this thread is no longer worth finishing."""
    end: float | None = getattr(_thread, "end", None)
    if end is not None and monotonic() > end:
        raise OutOfTime
