"""Attacks on a service that may map 2 GB: it stays small, alive and right, and recovers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client
from tests.conftest import ROOT
from tests.service.attacks import ATTACKS, HEAD, connect, read_status
from tests.service.processes import measure_peak, measure_resident, run_service

LOGGER = logging.getLogger(__name__)
GIB = 1 << 30
LIMITS = [f"--as={2 * GIB}", "--nofile=256"]


class Prober(threading.Thread):
    """Asks ``/livez`` on a connection of its own, again and again."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._port = int(address.rsplit(":", 1)[1])
        self._stop_event = threading.Event()
        self.milliseconds: list[float] = []
        self.failures: Counter[str] = Counter()

    def run(self) -> None:
        while not self._stop_event.wait(0.02):
            begun = time.perf_counter()
            try:
                with connect(self._port, timeout=60) as connection:
                    connection.sendall(HEAD % b"GET /livez" + b"\r\n")
                    status = read_status(connection, drain=False)
            except OSError as error:
                status = type(error).__name__
            if status != "200":
                self.failures[status] += 1
            self.milliseconds.append(1000 * (time.perf_counter() - begun))

    def stop(self) -> None:
        self._stop_event.set()
        self.join()


@contextmanager
def probe(address: str) -> Iterator[Prober]:
    prober = Prober(address)
    prober.start()
    try:
        yield prober
    finally:
        prober.stop()


def run_attack(name: str, address: str, seconds: float) -> Counter[str]:
    """How often each status came."""
    port = address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "tests.service.attacks", name, port, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    return Counter(json.loads(done.stdout))


def wait_until_answered(client: Client, score: float) -> float:
    """Seconds until a match is answered, as it was before."""
    begun = time.perf_counter()
    while True:
        try:
            result = client.match([{"id": "item-0"}]).results[0]
        except Exception:
            assert time.perf_counter() < begun + 60
            time.sleep(0.02)
            continue
        assert result.score == score
        return time.perf_counter() - begun


@pytest.mark.parametrize(
    "seconds", [1.0, pytest.param(15.0, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
def test_attacks(
    bundle: Any, tmp_path: Any, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    is_full = seconds > 10
    with (
        run_service(str(bundle.path), "--data", str(tmp_path), limits=LIMITS) as (process, address),
        Client(address, retries=0, timeout=60) as client,
    ):
        score = client.match([{"id": "item-0"}]).results[0].score
        assert score is not None
        began = measure_resident(process.pid)
        with probe(address) as prober:
            time.sleep(seconds)
        # on a machine that others use, an answer takes long without an attack as well
        quiet = max(prober.milliseconds)
        for name in ATTACKS:
            with probe(address) as prober:
                statuses = run_attack(name, address, seconds)
            recovered = wait_until_answered(client, score)
            peak = measure_peak(process.pid) - began
            slowest, usual = max(prober.milliseconds), float(np.median(prober.milliseconds))
            figures = (
                f"{name}: answers {dict(statuses)}; /livez {len(prober.milliseconds)} times, median "
                f"{usual:.1f} ms, slowest {slowest:.0f} ms (without an attack {quiet:.0f} ms), failed "
                f"{dict(prober.failures)}; memory at most "
                f"{peak / 2**20:+.0f} MiB; recovered in {recovered:.2f} s"
            )
            LOGGER.info(figures)
            record_property("figures", figures)
            assert process.poll() is None, figures
            assert not [status for status in statuses if status.startswith("5")], figures
            assert sum(statuses.values()) > 0, figures
            assert not prober.failures, figures
            assert peak < GIB, figures
            if is_full:
                assert slowest < 250 + quiet, figures
                assert recovered < 2, figures
        answered = [
            line
            for line in httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
            if 'code="5' in line
        ]
        assert not answered
        assert client.info().items == 320
