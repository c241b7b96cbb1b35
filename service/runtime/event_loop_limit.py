"""How long requests wait for the event loop, and who is sent away because of it.

A light request is answered on the loop itself, so those that come at the same time wait for each other
there, where no queue can be counted. What can be measured is how long the present turn of the loop has
lasted: everyone who is looked at late in it has waited for that long.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from service.errors.problems import build_overloaded

# so many of one turn are always taken: a few clients at once are no overload, however slow the machine is
ALWAYS = 8


class EventLoopLimit:
    """Admits requests until a turn of the loop has lasted ``longest`` seconds.

    What a turn takes is thereby bounded, and with it the wait of what comes in the next turn.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._began = 0.0
        self._admitted = 0
        self._turning = False

    def admit(self) -> None:
        """Count a request of this turn; raises the problem ``overloaded`` (429) when it comes too late."""
        now = perf_counter()
        if not self._turning:
            self._turning, self._began, self._admitted = True, now, 0
            # runs first in the next turn
            asyncio.get_running_loop().call_soon(self._end)
        if self._admitted >= ALWAYS and now - self._began > self._longest:
            raise build_overloaded("too many requests at once")
        self._admitted += 1

    def _end(self) -> None:
        self._turning = False
