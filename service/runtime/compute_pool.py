"""Numbers are crunched in a bounded number of threads, away from the loop that talks to clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter, thread_time
from typing import TypeVar

import faiss

from service.errors.problems import DEADLINE, ServiceProblem, build_overloaded
from service.telemetry.prometheus import QUEUED

T = TypeVar("T")
# a request that waits four times as long as it takes is answered in five times its time
PATIENCE = 4.0
SMOOTHING = 0.05
# so much is always taken: a few clients at once are no overload, however slow the machine is
ALWAYS = 4


class ComputePool:
    """A pool of threads, each with one FAISS thread of its own; a bounded wait, and a deadline.

    Args:
        threads: how many compute at once.
        max_wait: seconds; work that would wait longer than this, and longer than four times what
            work takes while nothing else runs, is sent away at once.
        deadline: seconds after which nobody waits for an answer any more.
    """

    def __init__(self, threads: int, max_wait: float, deadline: float) -> None:
        # OpenMP counts per calling thread: without this every pool thread would start a team of its own
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="compute", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._threads = threads
        self._max_wait = max_wait
        self._deadline = deadline
        self._inside = self._begun = self._refusable = 0
        # seconds a piece of work takes now; with nothing beside it; and of its thread's own time. Threads
        # that wait for each other take longer the more there is to do: patience must not grow with that
        self._usual = self._alone = self._own = 0.0

    async def run(self, work: Callable[[], T], *, light: bool = False, bounded: bool = True) -> T:
        """The result of ``work``.

        Args:
            work: computes; it must not touch the loop.
            light: it takes well under a millisecond, and is done at once: handing it to a thread and back
                would take longer than the work.
            bounded: False for what must go through under any load, such as rolling back; it counts as no
                client's.

        Raises:
            ServiceProblem: ``overloaded`` (429) or ``deadline-exceeded`` (503).
        """
        if light:
            return work()
        if bounded:
            self.admit()
        alone = self._inside == 0
        self._inside += 1
        self._begun += 1
        self._refusable += bounded
        begun = self._begun
        QUEUED.set(max(0, self._inside - self._threads))
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, work)
        # work goes on when nobody waits for it any more, and counts until it ends
        future.add_done_callback(partial(self._ended, bounded))
        try:
            async with asyncio.timeout(self._deadline):
                result, wall, own = await asyncio.shield(future)
        except TimeoutError:
            raise ServiceProblem(
                DEADLINE,
                f"The answer took over {self._deadline:g} s (LIMEN_DEADLINE): ask for less at once.",
                headers={"Retry-After": "5"},
            ) from None
        self._note(wall, own, alone and begun == self._begun)
        return result

    def close(self) -> None:
        """Let running work end and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def admit(self) -> None:
        """Raises the problem ``overloaded`` (429) where work would have to wait for too long."""
        ahead = self._inside - self._threads + 1
        wait = ahead * self._usual / self._threads
        if self._refusable >= ALWAYS and wait > max(self._max_wait, PATIENCE * max(self._alone, self._own)):
            raise build_overloaded(f"an answer would take {1000 * (wait + self._usual):.0f} ms")

    def _note(self, wall: float, own: float, alone: bool) -> None:
        """Seconds that a piece of work took on the clock, and of its thread; ``alone``: nothing beside it."""
        self._usual = _smoothed(self._usual, wall)
        self._own = _smoothed(self._own, own)
        if alone:
            self._alone = _smoothed(self._alone, wall)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float, float]:
        start, own = perf_counter(), thread_time()
        return work(), perf_counter() - start, thread_time() - own

    def _ended(self, bounded: bool, future: asyncio.Future[tuple[T, float, float]]) -> None:
        self._inside -= 1
        self._refusable -= bounded
        # a result that nobody waits for is looked at here, so that its error is not reported as lost
        if not future.cancelled():
            future.exception()


def _smoothed(before: float, value: float) -> float:
    return before + (value - before) * SMOOTHING if before else value
