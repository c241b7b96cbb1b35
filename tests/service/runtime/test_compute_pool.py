"""The compute pool: its deadline, its limit on waiting, one FAISS thread per compute thread."""

from __future__ import annotations

import asyncio
import threading
import time

import faiss
import pytest

from common.time_budget import OutOfTime, check_time
from service.errors.problems import ServiceProblem
from service.runtime.compute_pool import ALWAYS, ALWAYS_SMALL, ComputePool


def test_no_request_waits_longer_than_the_deadline() -> None:
    async def run_scenario() -> None:
        compute, go = ComputePool(1, 10.0, 0.05), threading.Event()
        with pytest.raises(ServiceProblem, match="ask for less") as late:
            await compute.run(lambda: go.wait(20))
        assert (late.value.kind.status, late.value.headers["Retry-After"]) == (503, "5")
        go.set()
        await asyncio.sleep(0)
        compute.close()

    asyncio.run(run_scenario())


def test_work_that_nobody_waits_for_is_given_up() -> None:
    async def run_scenario() -> None:
        compute = ComputePool(1, 10.0, 0.05)
        ended, started_late = threading.Event(), threading.Event()

        def work_long() -> None:
            try:
                while True:
                    check_time()
                    time.sleep(0.5)  # it gives up well after the deadline of what waits behind it
            except OutOfTime:
                ended.set()
                raise

        long = asyncio.create_task(compute.run(work_long))
        queued = asyncio.create_task(compute.run(started_late.set))
        for refused in (long, queued):
            with pytest.raises(ServiceProblem, match="ask for less"):
                await refused
        assert await asyncio.to_thread(ended.wait, 20)
        await asyncio.to_thread(compute.close)
        assert not started_late.is_set(), "what waited until its deadline is not begun"

    asyncio.run(run_scenario())


def test_who_would_wait_too_long_is_sent_away_but_a_few_never_are() -> None:
    async def run_scenario() -> None:
        compute, go = ComputePool(1, 0.0, 20.0), threading.Event()
        await compute.run(lambda: time.sleep(0.001))
        background = [
            asyncio.create_task(compute.run(lambda: go.wait(20), bounded=False)) for _ in range(ALWAYS)
        ]
        clients = [asyncio.create_task(compute.run(lambda: go.wait(20))) for _ in range(ALWAYS)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceProblem, match="an answer would take") as refusal:
            compute.check_wait()
        assert (refusal.value.kind.status, refusal.value.headers["Retry-After"]) == (429, "1")
        with pytest.raises(ServiceProblem, match="an answer would take"):
            await compute.run(lambda: None)
        await asyncio.gather(asyncio.create_task(_set(go)), *background, *clients)
        compute.check_wait()
        compute.close()

    async def _set(go: threading.Event) -> None:
        go.set()

    asyncio.run(run_scenario())


def test_eight_small_pieces_are_accepted_where_others_take_the_cores() -> None:
    """Work that sleeps is as slow as on a busy machine, and takes no CPU time."""

    async def run_scenario() -> None:
        compute = ComputePool(1, 0.01, 20.0)
        for _ in range(3):
            await compute.run(lambda: time.sleep(0.03))
        clients = [asyncio.create_task(compute.run(lambda: time.sleep(0.03))) for _ in range(ALWAYS_SMALL)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceProblem, match="an answer would take"):
            compute.check_wait()
        await asyncio.gather(*clients)
        compute.close()

    asyncio.run(run_scenario())


def test_every_computing_thread_has_one_faiss_thread() -> None:
    async def run_scenario() -> None:
        compute, together = ComputePool(2, 10.0, 20.0), threading.Barrier(2)

        def count_threads() -> int:
            together.wait(10)
            return int(faiss.omp_get_max_threads())

        assert await asyncio.gather(compute.run(count_threads), compute.run(count_threads)) == [1, 1]
        compute.close()

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        asyncio.run(run_scenario())
        assert faiss.omp_get_max_threads() == 3, "OpenMP counts per calling thread"
    finally:
        faiss.omp_set_num_threads(before)
