"""Three times the capacity: accepted requests are answered in time, the others are refused."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from benchmarks.wire import build_request
from tests.service.load_generator import Answer, send_at_rate
from tests.service.processes import measure_resident, run_service

LOGGER = logging.getLogger(__name__)
ROWS = np.random.default_rng(0).normal(size=(64, 16)).astype("<f4")
# the first is computed in threads and waits for one, the second is answered on the event loop
HEAVY = build_request("POST", "/v1/search?k=20&exact=true&include=", ROWS.tobytes())
LIGHT = build_request("POST", "/v1/search?k=10&include=", ROWS[:1].tobytes())


ONE = ROWS[:1].tobytes()
ONE_THING = {
    "search": LIGHT,
    "match": build_request("POST", "/v1/match?k=20", ONE),
    "exact": build_request("POST", "/v1/search?k=10&exact=true&include=", ONE),
    "filter": build_request("POST", "/v1/search?k=10&filter=%7B%22camera%22%3A1%7D", ONE),
    "verify": build_request(
        "POST",
        "/v1/verify",
        b'{"pairs": [{"a": {"id": "item-0"}, "b": {"id": "item-1"}}]}',
        "application/json",
    ),
}


@contextmanager
def keep_cores_busy(n: int) -> Iterator[None]:
    """Processes that compute all the time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("seconds", [0.4, pytest.param(10.0, marks=pytest.mark.full)])
def test_eight_clients_with_one_thing_each_are_never_refused_on_busy_cores(
    bundle: Any, seconds: float
) -> None:
    with keep_cores_busy(2), run_service(str(bundle.path)) as (_, address):
        port = int(address.rsplit(":", 1)[1])
        for name, request in ONE_THING.items():
            answers = send_at_rate(port, request, seconds, connections=8)
            assert {answer.status for answer in answers} == {200}, name


def select_times(answers: list[Answer], status: int = 200) -> np.ndarray:
    """How long the answers of a status took."""
    return np.array([answer.ms for answer in answers if answer.status == status])


@pytest.mark.parametrize("request_of", [HEAVY, LIGHT], ids=["heavy", "light"])
@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.full)])
def test_three_times_capacity(bundle: Any, seconds: float, request_of: bytes, record_property: Any) -> None:
    with run_service(str(bundle.path)) as (process, address):
        port = int(address.rsplit(":", 1)[1])
        send_at_rate(port, request_of, seconds / 6, connections=2)
        unloaded = select_times(send_at_rate(port, request_of, seconds / 3, connections=1, rate=50))
        capacity = len(select_times(send_at_rate(port, request_of, seconds / 3, connections=2))) / (
            seconds / 3
        )
        before, cpu = measure_resident(process.pid), time.process_time()
        answers = send_at_rate(port, request_of, seconds, connections=96, rate=3 * capacity)
        cpu = time.process_time() - cpu
        grown = measure_resident(process.pid) - before
        accepted, refused = select_times(answers), select_times(answers, 429)
        time.sleep(1.0)
        after = send_at_rate(port, request_of, 1.0, connections=1, rate=50)
        p99, base = np.percentile(accepted, 99), np.percentile(unloaded, 99)
        figures = (
            f"capacity {capacity:.0f}/s, offered {len(answers) / seconds:.0f}/s "
            f"(the client took {100 * cpu / seconds:.0f} % of a core), "
            f"accepted {len(accepted) / seconds:.0f}/s, 429 {len(refused)}, "
            f"p50 {np.median(accepted):.1f} ms, p99 {p99:.1f} ms; "
            f"unloaded p50 {np.median(unloaded):.1f} ms, p99 {base:.1f} ms: {p99 / base:.1f} x; "
            f"memory {grown / 2**20:+.1f} MiB"
        )
        record_property("figures", figures)
        LOGGER.info(figures)
        assert {answer.status for answer in answers} <= {200, 429}, figures
        assert len(refused) > 0 or request_of is LIGHT, figures
        assert grown < 64 << 20, figures
        assert all(answer.status == 200 for answer in after), "recovered within two seconds"
        if seconds > 10:
            assert p99 <= 5 * base, figures
