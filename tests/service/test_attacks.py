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
from pathlib import Path
from typing import Any, NamedTuple

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


class Target(NamedTuple):
    """A service under attack, and what it was like before."""

    process: subprocess.Popen[str]
    address: str
    client: Client
    score: float
    resident: int
    quiet: float

    def endure(self, name: str, seconds: float) -> tuple[float, float, str]:
        """The slowest ``/livez`` in milliseconds, the seconds until it had recovered, and all figures."""
        with probe(self.address) as prober:
            statuses = run_attack(name, self.address, seconds)
        recovered = wait_until_answered(self.client, self.score)
        peak = measure_peak(self.process.pid) - self.resident
        slowest, usual = max(prober.milliseconds), float(np.median(prober.milliseconds))
        figures = (
            f"{name}: answers {dict(statuses)}; /livez {len(prober.milliseconds)} times, median "
            f"{usual:.1f} ms, slowest {slowest:.0f} ms (without an attack {self.quiet:.0f} ms), failed "
            f"{dict(prober.failures)}; memory at most {peak / 2**20:+.0f} MiB; recovered in {recovered:.2f} s"
        )
        LOGGER.info(figures)
        assert self.process.poll() is None, figures
        assert not [status for status in statuses if status.startswith("5")], figures
        assert sum(statuses.values()) > 0, figures
        assert not prober.failures, figures
        assert peak < GIB, figures
        return slowest, recovered, figures


@contextmanager
def serve_target(bundle: Any, data: Path, seconds: float) -> Iterator[Target]:
    with (
        run_service(str(bundle.path), "--data", str(data), limits=LIMITS) as (process, address),
        Client(address, retries=0, timeout=60) as client,
    ):
        score = client.match([{"id": "item-0"}]).results[0].score
        assert score is not None
        with probe(address) as prober:
            time.sleep(seconds)
        resident = measure_resident(process.pid)
        yield Target(process, address, client, score, resident, max(prober.milliseconds))
        text = httpx.get(f"{address}/metrics", timeout=60).text
        assert not [line for line in text.splitlines() if 'code="5' in line]
        assert client.info().items == 320


def test_a_service_under_attack_stays_small_and_recovers(
    bundle: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with serve_target(bundle, tmp_path, 0.5) as target:
        for name in ATTACKS:
            record_property(name, target.endure(name, 0.5)[-1])


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_service_under_attack_answers_within_250_ms(
    bundle: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Three tries each: on a machine that others use, any answer may be late, with an attack or without."""
    with serve_target(bundle, tmp_path, 15.0) as target:
        for name in ATTACKS:
            for tries_left in (2, 1, 0):
                slowest, recovered, figures = target.endure(name, 15.0)
                if (slowest < 250 and recovered < 2) or not tries_left:
                    break
            record_property(name, figures)
            assert slowest < 250, figures
            assert recovered < 2, figures
