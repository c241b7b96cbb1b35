"""A decision, or a pair, has one verdict: it can be changed and counts once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from limen.client import Client
from tests.service.bundles import read_stored_feedback, serve


def test_one_verdict_a_decision_and_a_pair(bundle: Any, tmp_path: Path) -> None:
    a, b = ({"vector": bundle.get_vector(row)} for row in (0, 9))
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        first, second = client.match([{"id": "item-0"}, {"id": "item-0"}]).results
        for same in (True, False, True, False):
            assert client.feedback(decision_id=first.decision_id, same=same).total == 1
        assert client.feedback(decision_id=second.decision_id, same=True).total == 2, "another decision"
        for same, pair in ((True, ("item-0", "item-9")), (False, ("item-9", "item-0"))):
            left, right = ({"id": name} for name in pair)
            assert client.feedback(a=left, b=right, same=same).total == 3
        assert client.feedback(a=a, b=b, same=True).total == 4
        assert client.feedback(a=b, b=a, same=False).total == 4
        assert client.feedback(a={"id": "item-0"}, b=b, same=False).total == 5
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        assert client.feedback(decision_id=first.decision_id, same=True).total == 5, "after a restart, too"
        client.delete("item-9")
        assert client.feedback(decision_id=first.decision_id, same=False).total == 4
        report = client.wait(client.compute_report("feedback"))
        assert report.status == "done"
        counts = httpx.get(f"{at}/v1/reports/consistency?source=feedback").json()["counts"]
        assert (counts["genuine_pairs"], counts["impostor_pairs"]) == (1, 3)
    stored = read_stored_feedback(tmp_path)
    assert [entry["same"] for entry in stored] == [False, True, False, False]


def test_feedback_of_an_earlier_version_is_kept(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        decided = client.match([{"id": "item-0"}]).results[0]
        client.feedback(a={"id": "item-1"}, b={"id": "item-2"}, same=True)
    (file,) = tmp_path.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE feedback SET subject = NULL")
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        assert client.feedback(decision_id=decided.decision_id, same=True).total == 2
