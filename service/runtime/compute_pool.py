"""The thread pool for CPU work, off the event loop, and the limit on the wait for one of its threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from time import perf_counter, thread_time
from typing import TypeVar

import faiss

from common.spans import SPANS, Span
from common.time_budget import OutOfTime, TimeBudget, check_time, limit_time
from index.store.write_order import WriteOrder
from service.errors.problems import build_deadline, build_overloaded, build_withdrawn
from service.telemetry.prometheus import QUEUED

T = TypeVar("T")
# a request that waits four times as long as it computes is answered in five times its unloaded time
PATIENCE = 4.0
SMOOTHING = 0.05
# so much work is always accepted: a few clients at once are no overload, however slow or busy the machine is
ALWAYS, ALWAYS_SMALL = 4, 8
# work is small by its CPU time, which does not grow where others take the cores: a fraction of `max_wait`
SMALL = 0.4


class ComputePool:
    """A pool of compute threads with a bounded wait and a deadline; each runs FAISS on one thread.

    Args:
        threads: pieces of work that compute at once.
        max_wait: seconds; work that would wait longer than this, and longer than four times its
            unloaded duration, is refused at once.
        deadline: seconds after which a request is answered 503, and its work given up where it checks the
            time (`common.time_budget`).
        name: of its threads.
    """

    def __init__(self, threads: int, max_wait: float, deadline: float, name: str = "compute") -> None:
        # OpenMP counts per calling thread: without this every pool thread would start a team of its own
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._threads = threads
        self._max_wait = max_wait
        self._deadline = deadline
        # pieces of work in the pool; of these, how many may be refused; how many have ever been started
        self._inside = self._refusable = self._started = 0
        # smoothed seconds of one piece of work: now; with the pool to itself; of CPU time. Contending threads
        # take longer the more there is to do: the accepted wait must not grow with that
        self._usual = self._unloaded = self._cpu = 0.0

    async def run(
        self,
        work: Callable[[], T],
        *,
        light: bool = False,
        bounded: bool = True,
        order: WriteOrder | None = None,
    ) -> T:
        """The result of ``work``.

        Args:
            work: computes; it must not touch the event loop.
            light: takes well under a millisecond, and is done at once: handing it to a thread and back
                would take longer than the work.
            bounded: False for what must go through under any load, such as a rollback; it does not count
                towards the limit.
            order: of work that writes. At the deadline it is withdrawn, so that what was answered 503 is not
                done later; once its commit has begun the answer is waited for.

        Raises:
            ServiceProblem: ``overloaded`` (429) or ``deadline-exceeded`` (503).
        """
        if light:
            return work()
        if bounded:
            self.check_wait()
        alone = self._inside == 0
        self._inside += 1
        self._started += 1
        self._refusable += bounded
        started = self._started
        QUEUED.set(max(0, self._inside - self._threads))
        # a write is withdrawn instead: once it has begun to commit it must end
        budget = TimeBudget(self._deadline if order is None else inf)
        future = asyncio.get_running_loop().run_in_executor(
            self._pool, _time, work, budget, SPANS.get(), perf_counter()
        )
        # work continues after its request was given up, and counts until it ends
        future.add_done_callback(partial(self._forget, bounded))
        try:
            async with asyncio.timeout(self._deadline):
                result, wall, cpu = await asyncio.shield(future)
        except (TimeoutError, OutOfTime):
            if order is None:
                raise build_deadline(self._deadline) from None
            if order.withdraw():
                raise build_withdrawn(self._deadline) from None
            result, wall, cpu = await asyncio.shield(future)
        except asyncio.CancelledError:
            # the client has gone
            if order is None:
                budget.cancel()
            else:
                order.withdraw()
            raise
        self._record(wall, cpu, alone and started == self._started)
        return result

    def close(self) -> None:
        """Finish running work and accept no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def check_wait(self) -> None:
        """Raises the problem ``overloaded`` (429) where work would wait too long for a thread."""
        ahead = self._inside - self._threads + 1
        wait = ahead * self._usual / self._threads
        accepted = max(self._max_wait, PATIENCE * max(self._unloaded, self._cpu))
        is_small = self._cpu <= SMALL * self._max_wait * self._threads
        if self._refusable >= (ALWAYS_SMALL if is_small else ALWAYS) and wait > accepted:
            raise build_overloaded(f"an answer would take {1000 * (wait + self._usual):.0f} ms")

    def _record(self, wall: float, cpu: float, alone: bool) -> None:
        """Update the smoothed durations; ``alone``: nothing else was computed meanwhile."""
        self._usual = _smooth(self._usual, wall)
        self._cpu = _smooth(self._cpu, cpu)
        if alone:
            self._unloaded = _smooth(self._unloaded, wall)

    def _forget(self, bounded: bool, future: asyncio.Future[tuple[T, float, float]]) -> None:
        self._inside -= 1
        self._refusable -= bounded
        # retrieve the error of abandoned work, which asyncio would otherwise log as never retrieved
        if not future.cancelled():
            future.exception()


def _time(
    work: Callable[[], T], budget: TimeBudget, spans: list[Span] | None, given: float
) -> tuple[T, float, float]:
    """The result of ``work``, its seconds on the clock and of CPU time; ``given``: when it began to wait."""
    start, cpu = perf_counter(), thread_time()
    SPANS.set(spans)
    if spans is not None:
        spans.append(Span("wait", given, start))
    with limit_time(budget):
        check_time()
        result = work()
    return result, perf_counter() - start, thread_time() - cpu


def _smooth(before: float, value: float) -> float:
    return before + (value - before) * SMOOTHING if before else value
