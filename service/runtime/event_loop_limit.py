"""The limit on one iteration of the event loop, where small searches are computed.

Small searches that arrive together wait for each other on the loop itself, where no queue can be counted.
What can be measured is how long one takes there, and how many have arrived since the loop last began to
answer; and, where they are not counted on arrival, how long the current iteration has lasted.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from service.errors.problems import build_overloaded

# so many an iteration are always admitted: a few clients are no overload, however slow the machine is
ALWAYS = 8
SMOOTHING = 0.1


class EventLoopLimit:
    """Admits requests until answering them takes an iteration of the event loop ``max_turn`` seconds.

    This bounds the duration of an iteration, and with it the wait of the requests in the next one.
    """

    def __init__(self, max_turn: float) -> None:
        self._max_turn = max_turn
        self._began = 0.0
        self._admitted = 0
        self._in_iteration = False
        # requests that arrived and are not answered yet, those of the iteration before, and the smoothed
        # seconds that one took
        self._arrived = self._answered = 0
        self._usual = 0.0

    def check_arrival(self) -> None:
        """Count a request whose headers are here; raises the problem ``overloaded`` (429) behind too many."""
        if self._arrived >= ALWAYS and self._arrived * self._usual > self._max_turn:
            raise build_overloaded("too many requests at once")
        if not self._arrived:
            # runs in the next iteration, before what has arrived is answered
            asyncio.get_running_loop().call_soon(self._begin_answers)
        self._arrived += 1

    def _begin_answers(self) -> None:
        self._answered, self._arrived = self._arrived, 0
        asyncio.get_running_loop().call_soon(self._end_answers, perf_counter())

    def _end_answers(self, began: float) -> None:
        seconds = (perf_counter() - began) / self._answered
        self._usual += (seconds - self._usual) * (SMOOTHING if self._usual else 1.0)

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
