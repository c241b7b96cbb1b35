"""A store that another program holds: reads go on, and what was answered 503 is never done later."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.bundles import read_stored_feedback, serve

VECTOR = [float(value) for value in np.random.default_rng(0).normal(size=16)]


@contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the write lock of the item store, as a backup tool or a shell may."""
    (file,) = data.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_what_was_answered_503_is_not_done_later(bundle: Any, tmp_path: Path) -> None:
    lower = bundle.points["verify"].with_changes(threshold=-1.0)
    with (
        serve(bundle.path, data=tmp_path, deadline=0.4, threads=1) as at,
        httpx.Client(base_url=at) as client,
    ):
        active = client.get("/v1/info").json()["operating_points"]
        decided = client.post("/v1/match", json={"queries": [{"id": "item-0"}]}).json()["results"][0]
        writes: list[tuple[str, str, dict[str, Any] | None]] = [
            ("PUT", "/v1/items", {"items": [{"id": "late", "label": "x", "vector": VECTOR}]}),
            ("PUT", "/v1/items", {"items": [{"id": "item-1", "label": "late", "vector": VECTOR}]}),
            ("DELETE", "/v1/items/item-2", None),
            ("POST", "/v1/items/delete", {"ids": ["item-3"]}),
            ("POST", "/v1/items/delete", {"filter": {"camera": 0}}),
            ("POST", "/v1/feedback", {"decision_id": decided["decision_id"], "same": False}),
            ("POST", "/v1/operating-points", lower.model_dump(mode="json")),
            ("POST", f"/v1/operating-points/{bundle.points['verify'].id}/activate", None),
        ]
        with hold(tmp_path):
            for method, path, body in writes:
                answer = client.request(method, path, json=body)
                assert answer.status_code == 503, (path, answer.text)
                assert "nothing was changed" in answer.json()["detail"]
                # with the one compute thread free, and no writer's lock needed
                assert client.get("/v1/items/item-1").json()["label"] != "late"
                assert client.get("/v1/items?limit=1").status_code == 200
                assert client.post("/v1/search", json={"queries": [{"id": "item-1"}]}).status_code == 200
                assert client.get("/readyz").status_code == 200
        time.sleep(1.0)
        for path in ("/v1/items/item-2", "/v1/items/item-3"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/items/late").status_code == 404
        assert client.get("/v1/items/item-1").json()["label"] == bundle.gallery.labels[1]
        info = client.get("/v1/info").json()
        assert (info["items"], info["operating_points"]) == (320, active)
        assert len(client.get("/v1/operating-points").json()["operating_points"]) == 2
        assert client.put("/v1/items", json=writes[0][2]).json()["new"] == 1
    assert read_stored_feedback(tmp_path) == []
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert '"items.upsert"' in lines[0]


def test_what_its_client_gave_up_does_not_overtake_what_it_wrote_next(bundle: Any, tmp_path: Path) -> None:
    first, second = (
        {"items": [{"id": "a", "label": label, "vector": VECTOR}]} for label in ("first", "second")
    )
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        with hold(tmp_path):
            for give_up in ({"items": [{"id": "b", "label": "x", "vector": VECTOR}]}, first):
                with pytest.raises(httpx.ReadTimeout):
                    httpx.put(f"{at}/v1/items", json=give_up, timeout=0.3)
            time.sleep(1.0)
        assert client.put("/v1/items", json=second).json()["new"] == 1
        assert client.get("/v1/items/a").json()["label"] == "second"
        assert client.get("/v1/items/b").status_code == 404
        assert client.get("/v1/info").json()["items"] == 321


def test_a_write_waits_for_the_store_as_long_as_it_may(bundle: Any, tmp_path: Path) -> None:
    body = {"items": [{"id": "late", "label": "x", "vector": VECTOR}]}
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        with hold(tmp_path):
            time.sleep(0.3)
        assert client.put("/v1/items", json=body).status_code == 200
        assert client.get("/v1/items/late").status_code == 200
