"""The limit on an iteration of the event loop: which requests it admits, and which it refuses."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.errors.problems import ServiceProblem
from service.runtime.event_loop_limit import ALWAYS, EventLoopLimit


async def _send_request(limit: EventLoopLimit, seconds: float) -> bool:
    try:
        limit.check_iteration()
    except ServiceProblem:
        return False
    # not asyncio's: work on the loop itself is what this is about
    time.sleep(seconds)
    return True


def test_an_iteration_takes_a_few_always_and_more_while_it_is_short() -> None:
    async def run_scenario() -> None:
        late = EventLoopLimit(0.0)
        assert sum(await asyncio.gather(*(_send_request(late, 0.001) for _ in range(20)))) == ALWAYS
        full = EventLoopLimit(0.0)
        for _ in range(ALWAYS):
            full.check_iteration()
        with pytest.raises(ServiceProblem, match="too many requests at once") as refusal:
            full.check_iteration()
        assert (refusal.value.kind.status, refusal.value.headers["Retry-After"]) == (429, "1")
        early = EventLoopLimit(60.0)
        assert all(await asyncio.gather(*(_send_request(early, 0.0) for _ in range(200))))

    asyncio.run(run_scenario())


def test_the_next_iteration_begins_again() -> None:
    async def run_scenario() -> None:
        limit = EventLoopLimit(0.0)
        for _ in range(3):
            taken = await asyncio.gather(*(_send_request(limit, 0.001) for _ in range(ALWAYS + 1)))
            assert taken == [True] * ALWAYS + [False]
            await asyncio.sleep(0)
        # one after the other there is never anyone to wait for
        for _ in range(3 * ALWAYS):
            assert await _send_request(limit, 0.0)
            await asyncio.sleep(0)

    asyncio.run(run_scenario())


def test_a_shorter_iteration_takes_fewer() -> None:
    async def run_scenario() -> None:
        limit = EventLoopLimit(0.02)
        # a sleep may last longer than asked for, never shorter
        assert sum(await asyncio.gather(*(_send_request(limit, 0.004) for _ in range(50)))) == ALWAYS

    asyncio.run(run_scenario())


@pytest.mark.parametrize("clients", [1, ALWAYS])
def test_few_clients_are_never_sent_away(clients: int) -> None:
    async def client(limit: EventLoopLimit) -> bool:
        taken = True
        for _ in range(20):
            taken = taken and await _send_request(limit, 0.0002)
            await asyncio.sleep(0)
        return taken

    async def run_scenario() -> None:
        limit = EventLoopLimit(0.0)
        assert all(await asyncio.gather(*(client(limit) for _ in range(clients))))

    asyncio.run(run_scenario())


def test_arrivals_beyond_what_an_iteration_answers_in_time_are_refused() -> None:
    async def run_scenario() -> None:
        limit = EventLoopLimit(0.02)

        async def arrive(n: int) -> int:
            """Requests that arrive together, each answered in the next iteration."""
            admitted = 0
            for _ in range(n):
                try:
                    limit.check_arrival()
                except ServiceProblem:
                    continue
                admitted += 1
                asyncio.get_running_loop().call_soon(time.sleep, 0.001)
            await asyncio.sleep(0)  # they are answered
            await asyncio.sleep(0)  # and how long that took is known
            return admitted

        assert await arrive(50) == 50, "nothing is known of how long one takes"
        assert ALWAYS <= await arrive(50) <= 20
        limit = EventLoopLimit(0.0)
        assert await arrive(50) == 50
        assert [await arrive(50) for _ in range(3)] == [ALWAYS] * 3
        assert await arrive(ALWAYS) == ALWAYS

    asyncio.run(run_scenario())
