"""How many requests are worked on at once, how many may wait, and who is sent away."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from service.errors.problems import build_overloaded
from service.telemetry.prometheus import INFLIGHT


class AdmissionQueue:
    """A bounded number of turns and a bounded queue before them, first come first served.

    Bodies are read only after admission, so memory is bounded by ``turns`` times the body limit.
    Entering raises the problem ``overloaded`` (429) when the queue is full or the wait too long.
    """

    def __init__(self, turns: int, queue: int, patience: float) -> None:
        self._free = turns
        self._queue_limit = queue
        self._patience = patience
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait()
        INFLIGHT.inc()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        INFLIGHT.dec()
        self._pass_on()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._queue_limit:
            raise build_overloaded("its queue is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise build_overloaded(f"no turn came up in {self._patience:g} s") from None
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self._pass_on()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
