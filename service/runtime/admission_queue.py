"""The limit on requests in progress: how many are admitted at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from types import TracebackType

from service.errors.problems import build_overloaded
from service.telemetry.prometheus import INFLIGHT


class AdmissionQueue:
    """A semaphore of ``slots`` with a bounded queue, in which clients take turns.

    Large bodies are read only after admission, which bounds how many are in memory. Entering raises the
    problem ``overloaded`` (429) when the queue is full or after ``max_wait`` seconds.

    Args:
        slots: requests in progress.
        queue: requests that may wait.
        max_wait: seconds.
        per_client: requests in progress of one client; of the queue it may fill as large a part as of the
            slots. None for all of both.
    """

    def __init__(self, slots: int, queue: int, max_wait: float, per_client: int | None = None) -> None:
        self._free = slots
        self._per_client = slots if per_client is None else min(slots, per_client)
        self._queue_limit = queue
        self._queue_per_client = -(-queue * self._per_client // slots)
        self._max_wait = max_wait
        self._inside: Counter[str] = Counter()
        # clients in the order of their turns; one that has had its turn goes to the end
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def admit(self, client: str) -> Admission:
        """Hold a slot; raises the problem ``overloaded`` where there is none in time."""
        return Admission(self, client)

    async def take_slot(self, client: str) -> None:
        """Take a slot, or wait for one."""
        if self._free > 0 and self._inside[client] < self._per_client:
            self._take(client)
        else:
            await self._wait(client)

    async def _wait(self, client: str) -> None:
        if sum(map(len, self._waiting.values())) >= self._queue_limit:
            raise build_overloaded("its queue is full")
        turns = self._waiting.get(client, ())
        if len(turns) >= self._queue_per_client:
            raise build_overloaded("too many requests of this client wait")
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(slot)
        try:
            async with asyncio.timeout(self._max_wait):
                await slot
        except TimeoutError:
            self._give_up(client, slot)
            raise build_overloaded(f"no slot became free in {self._max_wait:g} s") from None
        except asyncio.CancelledError:
            self._give_up(client, slot)
            raise

    def _give_up(self, client: str, slot: asyncio.Future[None]) -> None:
        if slot.done() and not slot.cancelled():
            self.release(client)
        elif slot in self._waiting.get(client, ()):
            self._waiting[client].remove(slot)
            self._forget_if_none_waits(client)

    def _take(self, client: str) -> None:
        self._free -= 1
        self._inside[client] += 1

    def release(self, client: str) -> None:
        """Pass a slot on to the client whose turn it is, or mark it free."""
        self._free += 1
        self._inside[client] -= 1
        if not self._inside[client]:
            del self._inside[client]
        while self._free > 0 and (following := self._find_turn()) is not None:
            turns = self._waiting.pop(following)
            slot = turns.popleft()
            if turns:
                self._waiting[following] = turns
            if not slot.done():
                self._take(following)
                slot.set_result(None)

    def _find_turn(self) -> str | None:
        return next((name for name in self._waiting if self._inside[name] < self._per_client), None)

    def _forget_if_none_waits(self, client: str) -> None:
        if not self._waiting[client]:
            del self._waiting[client]


class Admission:
    """A slot of the queue, held inside ``async with``."""

    def __init__(self, queue: AdmissionQueue, client: str) -> None:
        self._queue, self._client = queue, client

    async def __aenter__(self) -> None:
        await self._queue.take_slot(self._client)
        INFLIGHT.inc()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        INFLIGHT.dec()
        self._queue.release(self._client)
