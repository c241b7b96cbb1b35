"""Two services on PostgreSQL and Milvus under load, while each of the three is killed in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.engines.galleries import hash_model, make_gallery, write_gallery
from tests.engines.milvus_server import run_local_server
from tests.engines.test_milvus_outage import QUERIES, tell
from tests.index import postgres
from tests.service.processes import run_service

SOON = 180.0
LOAD = "429 or 503"


class Load:
    """What clients asked of services, and what became of it. A service that was killed is started again, at
    another address."""

    def __init__(self, addresses: list[str], expected: list[tuple[Any, ...]]) -> None:
        self.addresses, self.expected = addresses, expected
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.counts = {"decided": 0, "written": 0, "deleted": 0, LOAD: 0, "no answer": 0}
        self.kept: set[str] = set()  # items whose last acknowledged change wrote them
        self.gone: set[str] = set()  # and those whose last acknowledged change deleted them
        self.wrong: list[str] = []

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def ask(self, service: int, send: Callable[[httpx.Client], httpx.Response]) -> httpx.Response | None:
        """The answer of a service; None where it is away or says, rightly, that it cannot answer now."""
        try:
            with httpx.Client(base_url=self.addresses[service], timeout=60) as client:
                answer = send(client)
        except httpx.TransportError:
            self.count("no answer")
            time.sleep(0.1)
            return None
        if answer.status_code in (429, 503):
            self.count(LOAD)
            if "retry-after" not in answer.headers:
                self.wrong.append(f"no Retry-After: {answer.text}")
            time.sleep(0.1)
            return None
        if answer.status_code >= 400:
            self.wrong.append(answer.text)
            return None
        return answer

    def read(self, service: int) -> None:
        """Match the same queries again and again: the answers are known."""
        while not self.stop.is_set():
            answer = self.ask(service, lambda client: client.post("/v1/match", json=QUERIES))
            if answer is not None:
                self.count("decided")
                if tell(answer) != self.expected:
                    self.wrong.append(answer.text)

    def write(self, service: int) -> None:
        """Write items that are near to no query, and delete some of them."""
        far = (-make_gallery().vectors.mean(axis=0)).tolist()
        for number in range(1_000_000):
            if self.stop.is_set():
                return
            name = f"w{service}-{number}"
            item = {"id": name, "label": "w", "vector": far}
            if self.ask(service, lambda client: client.put("/v1/items", json={"items": [item]})) is not None:  # noqa: B023
                self.count("written")
                self.kept.add(name)
                if number % 5 == 0:
                    done = self.ask(service, lambda client: client.delete(f"/v1/items/{name}"))  # noqa: B023
                    # a deletion without an answer may have been done
                    self.kept.discard(name)
                    if done is not None:
                        self.count("deleted")
                        self.gone.add(name)
            time.sleep(0.15)


def wait_until_ready(address: str) -> float:
    """Seconds until a service is ready."""
    begun = time.monotonic()
    with httpx.Client(base_url=address, timeout=30) as client:
        while True:
            with suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    return time.monotonic() - begun
            assert time.monotonic() < begun + SOON, f"{address} is not ready again"
            time.sleep(0.1)


def find_missing(address: str, load: Load) -> tuple[set[str], set[str]]:
    """Items that should be there and are not, and those that should not be and are."""
    present: set[str] = set()
    with httpx.Client(base_url=address, timeout=60) as client:
        cursor = None
        while True:
            parameters = {"limit": "1000"} | ({} if cursor is None else {"cursor": cursor})
            page = client.get("/v1/items", params=parameters).raise_for_status().json()
            present |= {item["id"] for item in page["items"]}
            cursor = page["next_cursor"]
            if cursor is None:
                return load.kept - present, load.gone & present


@pytest.mark.full
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("seconds", [60, 600])
def test_a_replica_milvus_and_postgresql_are_killed_in_turn(seconds: int, tmp_path: Path) -> None:
    bundle = write_gallery(tmp_path / "bundle", "milvus", hash_model(f"mixed {seconds}"), 0.9)
    rng = np.random.default_rng(seconds)
    kills = {"replica": 0, "milvus": 0, "postgresql": 0}
    recovery: dict[str, list[float]] = {name: [] for name in kills}
    with run_local_server() as milvus, postgres.running_server() as database, ExitStack() as stack:

        def run(name: str) -> AbstractContextManager[Any]:
            given = {"LIMEN_DATABASE_URL": database.address, "LIMEN_MILVUS_URI": milvus.uri}
            # as for clients that wait: on this machine everything waits for the cores
            given |= {"LIMEN_MAX_WAIT": "5", "LIMEN_THREADS": "1", "LIMEN_MILVUS_TIMEOUT": "30"}
            return run_service(str(bundle), "--data", str(tmp_path / name), **given)

        stays = stack.enter_context(run("stays"))
        dying = ExitStack()
        stack.callback(lambda: dying.close())
        process, address = dying.enter_context(run("dies"))
        with httpx.Client(base_url=stays[1], timeout=60) as client:
            load = Load([stays[1], address], tell(client.post("/v1/match", json=QUERIES)))
        jobs = [(load.read, 0), (load.read, 1), (load.write, 0), (load.write, 1)]
        threads = [threading.Thread(target=work, args=(service,)) for work, service in jobs]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end or min(kills.values()) == 0:
            time.sleep(float(rng.uniform(2, 8)))
            victim = min(kills, key=lambda name: (kills[name], rng.random()))
            kills[victim] += 1
            if victim == "replica":
                process.kill()
                process.wait(30)
                dying.close()
                begun = time.monotonic()
                process, load.addresses[1] = dying.enter_context(run("dies"))
                recovery[victim].append(time.monotonic() - begun)
                continue
            part = milvus if victim == "milvus" else database
            (milvus.kill if victim == "milvus" else database.stop)()
            time.sleep(float(rng.uniform(0.5, 5)))
            part.start()
            recovery[victim].append(max(wait_until_ready(at) for at in load.addresses))
        load.stop.set()
        for thread in threads:
            thread.join()
        for at in load.addresses:
            wait_until_ready(at)
        assert stays[0].poll() is None, "it was never started again"
        for service in (0, 1):
            with httpx.Client(base_url=load.addresses[service], timeout=60) as client:
                assert tell(client.post("/v1/match", json=QUERIES)) == load.expected
            assert find_missing(load.addresses[service], load) == (set(), set())
    longest = {
        name: [round(float(value), 1) for value in (np.median(all_), max(all_))]
        for name, all_ in recovery.items()
    }
    print(f"kills {kills}; ready again after, median and longest: {longest}; {load.counts}")  # noqa: T201
    assert load.wrong == []
    assert min(kills.values()) >= 1
    assert min(load.counts[what] for what in ("decided", "written", "deleted", LOAD)) > 0
