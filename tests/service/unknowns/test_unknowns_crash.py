"""kill -9 while unknowns are enrolled and undone: each is an item or waits, never both and never neither."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limen.client import Client, ServiceError, ServiceUnreachable
from tests.service.processes import run_service
from tests.service.routers.test_unknowns import ask, make_strangers

CLASSES, ITEMS = 6, 5


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_an_enrolment_is_whole_or_none(bundle: Any, tmp_path: Path, kills: int) -> None:
    arguments = (str(bundle.path), "--data", str(tmp_path))
    rows, names = make_strangers(21, CLASSES, ITEMS)
    with run_service(*arguments, LIMEN_KEEP_UNKNOWNS="unknown") as (_, address), Client(address) as client:
        for row, name in zip(rows, names, strict=True):
            ask(client, row[None], truth=name)
        kept = {entry.id: str(entry.metadata["truth"]) for entry in client.unknowns(limit=1000).unknowns}
        assert len(kept) == len(rows)
    for kill in range(kills):
        with run_service(*arguments) as (process, address):
            check(address, kept)
            worker = threading.Thread(target=enroll_and_undo, args=(address, kept))
            worker.start()
            time.sleep(0.4 + 0.07 * (kill % 5))
            process.kill()
            worker.join()
    with run_service(*arguments) as (_, address):
        check(address, kept)


def enroll_and_undo(address: str, kept: dict[str, str]) -> None:
    """Enrol classes whole and take every other one back, until the service is gone."""
    with Client(address, retries=0) as client:
        for step in range(100_000):
            name = f"stranger-{step % CLASSES}"
            ids = [unknown for unknown, truth in kept.items() if truth == name]
            try:
                done = client.enroll_unknowns(name, ids=ids)
                if step % 2:
                    client.undo_unknowns(done.change)
            except ServiceError:  # undone before, or overloaded
                continue
            except ServiceUnreachable:
                return


def check(address: str, kept: dict[str, str]) -> int:
    """Each kept query is an item of its label or open, all of one class alike; returns how many are items."""
    with Client(address, retries=5) as client:
        now = {entry.id: entry for entry in client.unknowns(limit=1000).unknowns}
        assert now.keys() == kept.keys()
        items = {item.id: item for item in client.items(cursor="unknown-", limit=1000).items}
        for name in set(kept.values()):
            of_class = [now[unknown] for unknown, truth in kept.items() if truth == name]
            assert len({entry.status for entry in of_class}) == 1, "an enrolment is whole or none"
        for entry in now.values():
            if entry.status == "enrolled":
                assert entry.item is not None
                assert items.pop(entry.item).label == entry.name == kept[entry.id]
            else:
                assert (entry.item, entry.name) == (None, None)
        assert not items, "no item without its query"
        return sum(entry.status == "enrolled" for entry in now.values())
