"""kill -9 under load with writes: what was answered with 200 is there afterwards."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limen.client import Client, ServiceError, ServiceUnreachable
from tests.service.processes import run_service


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_kill_nine_under_load(bundle: Any, tmp_path: Path, kills: int) -> None:
    acknowledged: set[str] = set()
    for kill in range(kills):
        with run_service(str(bundle.path), "--data", str(tmp_path)) as (process, address):
            check(address, acknowledged)
            writers = [
                threading.Thread(target=write, args=(address, f"{kill}-{number}", acknowledged))
                for number in range(3)
            ]
            for writer in writers:
                writer.start()
            enough, begun = len(acknowledged) + 9, time.monotonic()
            while len(acknowledged) < enough and time.monotonic() < begun + 30:
                time.sleep(0.05)
            time.sleep(0.03 * (kill % 7))
            process.kill()
            for writer in writers:
                writer.join()
    with run_service(str(bundle.path), "--data", str(tmp_path)) as (_, address):
        check(address, acknowledged)
    assert len(acknowledged) >= 9 * kills


def write(address: str, name: str, acknowledged: set[str]) -> None:
    """Upsert until the service is gone; note what it said yes to."""
    with Client(address, retries=0) as client:
        for step in range(100_000):
            items = [
                {"id": item_id, "label": "w", "vector": draw_vector(item_id)}
                for item_id in (f"{name}-{step}-{number}" for number in range(3))
            ]
            try:
                client.upsert(items)
                acknowledged.update(str(item["id"]) for item in items)
                client.match([{"vector": items[0]["vector"]}])
            except ServiceError as error:
                if error.problem.status == 429:
                    continue
                raise
            except ServiceUnreachable:
                return


def draw_vector(item_id: str) -> list[float]:
    """A vector of its own for every item: more copies of one vector than k would hide each other."""
    seed = [int(part) for part in item_id.split("-")]
    return [float(value) for value in np.random.default_rng(seed).normal(size=16)]


def check(address: str, acknowledged: set[str]) -> None:
    """Every acknowledged item can be read and is found by its own vector."""
    with Client(address, retries=5) as client:
        known, cursor = set(), None
        while True:
            page = client.items(cursor, limit=1000)
            known |= {item.id for item in page.items}
            cursor = page.next_cursor
            if cursor is None:
                break
        assert acknowledged <= known
        for item_id in sorted(acknowledged)[:: max(1, len(acknowledged) // 20)]:
            hit = client.search([{"vector": draw_vector(item_id)}], k=1).results[0].hits[0]
            assert hit.id == item_id
            assert hit.similarity > 0.99999
