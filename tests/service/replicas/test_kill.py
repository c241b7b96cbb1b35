"""kill -9 of one of several services on one PostgreSQL, and of that: what was acknowledged is there."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limen.client import Client, ServiceError, ServiceUnreachable
from tests.index import postgres
from tests.service.bundles import serve
from tests.service.processes import run_service

SOON = 60.0


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_kill_nine_of_a_replica_and_of_the_database(bundle: Any, tmp_path: Path, kills: int) -> None:
    rng = np.random.default_rng(kills)
    acknowledged: dict[str, list[float]] = {}
    with postgres.running_server() as server, ExitStack() as stack:
        stays = stack.enter_context(
            serve(bundle.path, data=tmp_path / "stays", database_url=server.address, max_wait=5)
        )
        for kill in range(kills):
            with run_service(
                str(bundle.path), "--data", str(tmp_path / "dies"), LIMEN_DATABASE_URL=server.address
            ) as (process, dies):
                stop = threading.Event()
                writers = [
                    threading.Thread(target=write, args=(at, f"{kill}-{number}", acknowledged, stop))
                    for number, at in enumerate((stays, stays, dies, dies))
                ]
                for writer in writers:
                    writer.start()
                wait_for_more(acknowledged, 12)
                time.sleep(float(rng.uniform(0, 0.3)))
                process.kill()
                wait_for_more(acknowledged, 4)
                server.stop()  # at once, as if killed
                time.sleep(float(rng.uniform(0, 0.5)))
                server.start()
                wait_for_more(acknowledged, 4)
                stop.set()
                for writer in writers:
                    writer.join()
        again = stack.enter_context(
            serve(bundle.path, data=tmp_path / "dies", database_url=server.address, max_wait=5)
        )
        queries = [{"vector": vector} for vector in list(acknowledged.values())[:50]]
        decided = []
        for address in (stays, again):
            with Client(address) as client:
                check(client, acknowledged)
                results = client.match(queries).results
                decided.append([(result.decision, result.id, result.score) for result in results])
        assert decided[0] == decided[1]


def wait_for_more(acknowledged: dict[str, list[float]], n: int) -> None:
    enough, end = len(acknowledged) + n, time.monotonic() + SOON
    while len(acknowledged) < enough:
        assert time.monotonic() < end, "no more writes are taken"
        time.sleep(0.02)


def write(address: str, name: str, acknowledged: dict[str, list[float]], stop: threading.Event) -> None:
    """Write until told to stop or the service is gone; note what it said yes to, by id with its vector."""
    rng = np.random.default_rng([int(part) for part in name.split("-")])
    with Client(address, retries=0) as client:
        for step in range(100_000):
            if stop.is_set():
                return
            vectors = {f"{name}-{step}-{number}": rng.normal(size=16).tolist() for number in range(2)}
            try:
                client.upsert(
                    [{"id": item, "label": "w", "vector": vector} for item, vector in vectors.items()]
                )
                acknowledged |= vectors
            except ServiceError as error:
                if error.problem.status not in {429, 503}:
                    raise
                time.sleep(0.05)
            except ServiceUnreachable:
                return


def check(client: Client, acknowledged: dict[str, list[float]]) -> None:
    """Every acknowledged item can be read and is found by its own vector, soon."""
    known, cursor = set(), None
    while True:
        page = client.items(cursor, limit=1000)
        known |= {item.id for item in page.items}
        cursor = page.next_cursor
        if cursor is None:
            break
    assert acknowledged.keys() <= known
    end = time.monotonic() + SOON
    for start in range(0, len(acknowledged), 500):
        ids = list(acknowledged)[start : start + 500]
        while True:
            results = client.search([{"vector": acknowledged[name]} for name in ids], k=1).results
            if [result.hits[0].id for result in results] == ids:
                break
            assert time.monotonic() < end
            time.sleep(0.05)
