"""The time by which the work of a thread must be done, checked by the loops that may take long.

Work on behalf of a client is not worth finishing once the client has been told that it took too long, or has
gone. A thread cannot be stopped from outside, so the loops over images, conditions and blocks of rows ask
whether there is time left. Where no time was set, there always is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import local
from time import monotonic

_thread = local()


class OutOfTime(Exception):
    """The work was given up, because nobody waits for its result any more."""


class TimeBudget:
    """Seconds from now on that some work may take; none are left once it is cancelled, from any thread."""

    def __init__(self, seconds: float = inf) -> None:
        self._end = monotonic() + seconds

    def cancel(self) -> None:
        """Let the work end at its next check."""
        self._end = -inf

    def check(self) -> None:
        """Raises OutOfTime once the work is no longer worth finishing."""
        if monotonic() > self._end:
            raise OutOfTime


@contextmanager
def limit_time(budget: TimeBudget) -> Iterator[None]:
    """Let the work of this thread be given up once the budget is used up."""
    before: TimeBudget | None = getattr(_thread, "budget", None)
    _thread.budget = budget
    try:
        yield
    finally:
        _thread.budget = before


def check_time() -> None:
    """Raises OutOfTime once the work of this thread is no longer worth finishing."""
    budget: TimeBudget | None = getattr(_thread, "budget", None)
    if budget is not None:
        budget.check()
