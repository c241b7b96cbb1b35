"""LIMEN_DATABASE_URL: what is written over HTTP is kept in PostgreSQL, and found there after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from index.store.item_store import DATABASE_FILE
from limen.client import Client
from tests.index import postgres
from tests.service.processes import run_service


def test_items_feedback_and_choices_survive_a_kill(bundle: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 16))
    new = [
        {"id": f"new-{n}", "label": "new", "vector": row, "metadata": {"n": n}} for n, row in enumerate(rows)
    ]
    arguments = (str(bundle.path), "--data", str(tmp_path))
    lower = bundle.points["verify"].with_changes(threshold=-1.0)
    with postgres.running() as database:
        with (
            run_service(*arguments, LIMEN_DATABASE_URL=database) as (process, address),
            Client(address) as client,
        ):
            assert client.upsert(new).new == 3
            decided = client.match(rows[:1]).results[0]
            assert decided.id == "new-0"
            assert client.delete_items(ids=["item-0", "new-2"]).deleted == 2
            client.feedback(decision_id=decided.decision_id, same=True)
            client.add_operating_point(lower)
            client.activate_operating_point(lower.id)
            process.kill()
        assert not list(tmp_path.rglob(f"{DATABASE_FILE}*")), "nothing is kept in the folder that must last"
        with run_service(*arguments, LIMEN_DATABASE_URL=database) as (_, address), Client(address) as client:
            assert client.info().items == 321
            assert client.item("new-1").metadata == {"n": 1}
            assert client.search(rows, 1).results[0].hits[0].id == "new-0"
            assert (
                client.verify([({"id": "item-1"}, {"id": "item-300"})]).results[0].operating_point == lower.id
            )
            job = client.delete("new-1", rebuild=True).job
            assert job is not None
            assert client.wait(client.job(job)).status == "done"
            assert client.search(rows[1:2], 1, filter={"label": "new"}).results[0].hits[0].id == "new-0"
            client.wait(client.compute_report("feedback"))
            assert client.history().entries
