"""The limit on requests in progress: how many are admitted at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from service.errors.problems import build_overloaded
from service.telemetry.prometheus import INFLIGHT


class AdmissionQueue:
    """A semaphore of ``slots`` with a bounded first-come, first-served queue.

    Bodies are read only after admission, so memory is bounded by ``slots`` times the body limit.
    Entering raises the problem ``overloaded`` (429) when the queue is full or after ``max_wait`` seconds.
    """

    def __init__(self, slots: int, queue: int, max_wait: float) -> None:
        self._free = slots
        self._queue_limit = queue
        self._max_wait = max_wait
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
        self._release()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._queue_limit:
            raise build_overloaded("its queue is full")
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            async with asyncio.timeout(self._max_wait):
                await slot
        except TimeoutError:
            self._give_up(slot)
            raise build_overloaded(f"no slot became free in {self._max_wait:g} s") from None
        except asyncio.CancelledError:
            self._give_up(slot)
            raise

    def _give_up(self, slot: asyncio.Future[None]) -> None:
        if slot.done() and not slot.cancelled():
            self._release()
        elif slot in self._waiting:
            self._waiting.remove(slot)

    def _release(self) -> None:
        """Pass a slot on to the first that waits, or mark it free."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1
