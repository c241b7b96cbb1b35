"""Numbers are crunched in a bounded number of threads, away from the loop that talks to clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss

from service.problems import DEADLINE, ServiceProblem

T = TypeVar("T")


class Compute:
    """A pool of threads, each with one FAISS thread of its own, and a deadline."""

    def __init__(self, threads: int, deadline: float) -> None:
        # OpenMP counts per calling thread: without this every pool thread would start a team of its own
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="compute", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._deadline = deadline
        self._running = 0

    async def run(self, work: Callable[[], T], *, light: bool = False) -> T:
        """The result of ``work``; raises the problem ``deadline-exceeded`` (503) when it takes too long.

        ``light`` work, well under a millisecond, is done at once while no other work is going on:
        handing it to a thread and back would take longer than the work.
        """
        if light and self._running == 0:
            return work()
        self._running += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise ServiceProblem(
                DEADLINE,
                f"The answer took over {self._deadline:g} s (LIMEN_DEADLINE): ask for less at once.",
                headers={"Retry-After": "5"},
            ) from None
        finally:
            self._running -= 1

    def close(self) -> None:
        """Let running work end and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
