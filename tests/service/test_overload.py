"""Three times what the service can do: what it takes it answers in time, the rest is sent away at once."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from typing import Any

import numpy as np
import pytest

from tests.service.processes import resident, running

LOGGER = logging.getLogger(__name__)


Request = tuple[str, bytes]
ROWS = np.random.default_rng(0).normal(size=(64, 16)).astype("<f4")
# the first is computed in threads and waits for one, the second is answered on the event loop
HEAVY: Request = ("/v1/search?k=20&exact=true&include=", ROWS.tobytes())
LIGHT: Request = ("/v1/search?k=10&include=", ROWS[:1].tobytes())


class Asker(threading.Thread):
    """Asks at a fixed rate, whether answers come or not; notes status and milliseconds."""

    def __init__(self, port: int, request: Request, every: float, seconds: float) -> None:
        super().__init__()
        self._port, self._request, self._every, self._seconds = port, request, every, seconds
        self.answers: list[tuple[int, float]] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.connect()
        begun = time.perf_counter()
        due = begun
        while max(due, time.perf_counter()) < begun + self._seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            self.answers.append(ask(connection, self._request))
            due += self._every
        connection.close()


def ask(connection: http.client.HTTPConnection, request: Request) -> tuple[int, float]:
    start = time.perf_counter()
    path, body = request
    connection.request("POST", path, body, {"content-type": "application/octet-stream"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, 1000 * (time.perf_counter() - start)


@pytest.mark.parametrize("request_of", [HEAVY, LIGHT], ids=["heavy", "light"])
@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.full)])
def test_three_times_capacity(made: Any, seconds: float, request_of: Request, record_property: Any) -> None:
    with running(str(made.path)) as (process, address):
        port = int(address.rsplit(":", 1)[1])
        alone = Asker(port, request_of, 0.02, 3.0)
        alone.run()
        unloaded = np.array([ms for status, ms in alone.answers[10:] if status == 200])
        pair = [Asker(port, request_of, 0.0, 2.0) for _ in range(2)]
        for asker in pair:
            asker.start()
        for asker in pair:
            asker.join()
        capacity = sum(status == 200 for asker in pair for status, _ in asker.answers) / 2.0
        before = resident(process.pid)
        crowd = 48
        askers = [Asker(port, request_of, crowd / (3 * capacity), seconds) for _ in range(crowd)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        answers = [one for asker in askers for one in asker.answers]
        accepted = np.array([ms for status, ms in answers if status == 200])
        refused = sum(status == 429 for status, _ in answers)
        grown = resident(process.pid) - before
        time.sleep(1.0)
        after = Asker(port, request_of, 0.02, 1.0)
        after.run()
        p99, base = np.percentile(accepted, 99), np.percentile(unloaded, 99)
        figures = (
            f"capacity {capacity:.0f}/s, offered {len(answers) / seconds:.0f}/s, "
            f"accepted {len(accepted)}, 429 {refused}, "
            f"p50 {np.median(accepted):.1f} ms, p99 {p99:.1f} ms; "
            f"unloaded p50 {np.median(unloaded):.1f} ms, p99 {base:.1f} ms; "
            f"memory {grown / 2**20:+.1f} MiB"
        )
        record_property("figures", figures)
        assert {status for status, _ in answers} <= {200, 429}, figures
        LOGGER.info(figures)
        assert refused > 0 or request_of is LIGHT, figures
        assert grown < 64 << 20, figures
        assert all(status == 200 for status, _ in after.answers), "recovered within two seconds"
        if seconds > 10:
            assert p99 <= 5 * base, figures
