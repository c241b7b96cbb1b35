"""The limit on one iteration of the event loop, where small searches are computed.

Small searches that arrive together wait for each other on the loop itself, where no queue can be counted.
What can be measured is how long the current iteration has lasted: a request that is handled late in it has
waited that long.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from service.errors.problems import build_overloaded

# so many an iteration are always admitted: a few clients are no overload, however slow the machine is
ALWAYS = 8


class EventLoopLimit:
    """Admits requests until an iteration of the event loop has lasted ``max_turn`` seconds.

    This bounds the duration of an iteration, and with it the wait of the requests in the next one.
    """

    def __init__(self, max_turn: float) -> None:
        self._max_turn = max_turn
        self._began = 0.0
        self._admitted = 0
        self._in_iteration = False

    def check_iteration(self) -> None:
        """Count a request of this iteration; raises the problem ``overloaded`` (429) if it is too late."""
        now = perf_counter()
        if not self._in_iteration:
            self._in_iteration, self._began, self._admitted = True, now, 0
            # runs first in the next iteration
            asyncio.get_running_loop().call_soon(self._end_iteration)
        if self._admitted >= ALWAYS and now - self._began > self._max_turn:
            raise build_overloaded("too many requests at once")
        self._admitted += 1

    def _end_iteration(self) -> None:
        self._in_iteration = False
