"""The admission queue: bounded slots, first come first served, refusals when it is full or too slow."""

from __future__ import annotations

import asyncio

import pytest

from service.errors.problems import ServiceProblem
from service.runtime.admission_queue import AdmissionQueue


async def _hold(
    queue: AdmissionQueue, release: asyncio.Event, entered: list[int], number: int, client: str = "a"
) -> None:
    async with queue.admit(client):
        entered.append(number)
        await release.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_turns_are_bounded_and_first_come_first_served() -> None:
    async def run_scenario() -> None:
        queue, release, entered = AdmissionQueue(2, 3, 5.0), asyncio.Event(), list[int]()
        tasks = [asyncio.create_task(_hold(queue, release, entered, number)) for number in range(5)]
        await _settle()
        assert entered == [0, 1]
        with pytest.raises(ServiceProblem, match="queue is full") as refusal:
            await queue.admit("a").__aenter__()
        assert refusal.value.kind.status == 429
        assert refusal.value.headers["Retry-After"] == "1"
        release.set()
        await asyncio.gather(*tasks)
        assert entered == [0, 1, 2, 3, 4]
        async with queue.admit("a"), queue.admit("a"):
            pass

    asyncio.run(run_scenario())


def test_who_waits_too_long_is_sent_away_and_leaves_no_trace() -> None:
    async def run_scenario() -> None:
        queue, release, entered = AdmissionQueue(1, 3, 0.02), asyncio.Event(), list[int]()
        holder = asyncio.create_task(_hold(queue, release, entered, 0))
        await _settle()
        with pytest.raises(ServiceProblem, match="no slot"):
            await queue.admit("a").__aenter__()
        cancelled = asyncio.create_task(_hold(queue, release, entered, 1))
        await _settle()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        release.set()
        await holder
        async with queue.admit("a"):
            pass
        assert entered == [0]

    asyncio.run(run_scenario())


def test_one_client_leaves_room_for_others_and_they_take_turns() -> None:
    async def run_scenario() -> None:
        queue, release, entered = AdmissionQueue(4, 8, 5.0, per_client=3), asyncio.Event(), list[int]()
        greedy = [asyncio.create_task(_hold(queue, release, entered, number, "a")) for number in range(9)]
        await _settle()
        assert entered == [0, 1, 2], "three of four slots are one client's"
        with pytest.raises(ServiceProblem, match="of this client wait"):
            await queue.admit("a").__aenter__()
        others = [asyncio.create_task(_hold(queue, release, entered, 10 + n, "b")) for n in range(2)]
        await _settle()
        assert entered == [0, 1, 2, 10], "the fourth slot is another's"
        release.set()
        await asyncio.gather(*greedy, *others)
        assert entered.index(11) < entered.index(5), "clients that wait take turns"
        async with queue.admit("a"), queue.admit("a"), queue.admit("a"), queue.admit("b"):
            pass

    asyncio.run(run_scenario())
