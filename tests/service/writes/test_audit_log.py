"""The audit log names every write that the store holds, also after a crash and on a full disk."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from limen.client import Client
from service.models import loaded_model, model_registry
from service.telemetry import audit_log
from tests.service.bundles import serve
from tests.service.processes import run_service


def read_lines(data: Path) -> list[dict[str, Any]]:
    file = data / "audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def read_kept_lines(data: Path) -> list[dict[str, Any]]:
    """The lines that the store keeps because the log's file may lack them."""
    (file,) = data.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file)) as database:
        return [json.loads(line) for (line,) in database.execute("SELECT line FROM audit ORDER BY number")]


def make_items(first: int, n: int) -> list[dict[str, Any]]:
    rows = np.random.default_rng(first).normal(size=(n, 16)).tolist()
    return [{"id": f"w-{first + number}", "label": "w", "vector": row} for number, row in enumerate(rows)]


def test_no_item_of_the_store_lacks_a_line_after_a_kill(bundle: Any, tmp_path: Path) -> None:
    for first in range(0, 6_000, 2_000):
        with run_service(str(bundle.path), "--data", str(tmp_path)) as (process, address):
            enough = threading.Event()

            def write_all_the_time(
                address: str = address, first: int = first, enough: threading.Event = enough
            ) -> None:
                with httpx.Client(base_url=address) as client:
                    for start in range(first, first + 2_000, 20):
                        try:
                            client.put("/v1/items", json={"items": make_items(start, 20)})
                        except httpx.HTTPError:
                            return
                        if start >= first + 100:
                            enough.set()

            writer = threading.Thread(target=write_all_the_time)
            writer.start()
            assert enough.wait(60)
            process.kill()
            writer.join()
        (file,) = tmp_path.glob("models/*/limen.sqlite")
        with closing(sqlite3.connect(file)) as database:
            stored = {row[0] for row in database.execute("SELECT id FROM items WHERE label = 'w'")}
        lines = [*read_lines(tmp_path), *read_kept_lines(tmp_path)]
        assert stored == {item_id for line in lines for item_id in line["ids"]}, "between file and store"
        with serve(bundle.path, data=tmp_path) as at:
            assert httpx.get(f"{at}/readyz").status_code == 200
            named = [item_id for line in read_lines(tmp_path) for item_id in line["ids"]]
            assert len(named) == len(set(named)), "once"
            assert set(named) == stored


def test_a_log_that_cannot_be_written_fails_no_write_and_is_completed_later(
    bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        with monkeypatch.context() as patched:
            patched.setattr(audit_log, "append_lines", full)
            for first in (0, 3):
                answer = client.put("/v1/items", json={"items": make_items(first, 3)})
                assert answer.json()["new"] == 3
            assert read_lines(tmp_path) == []
            assert [line["n"] for line in read_kept_lines(tmp_path)] == [3, 3]
        client.delete("/v1/items/w-0")
        actions = [(line["action"], line["n"]) for line in read_lines(tmp_path)]
        assert actions == [("items.upsert", 3), ("items.upsert", 3), ("items.delete", 1)]
    assert read_kept_lines(tmp_path) == [], "the file holds them"
    # as a crash between the store's transaction and the file leaves it: one line is missing, one torn
    lines = (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)
    (file,) = tmp_path.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany("INSERT INTO audit (line) VALUES (?)", [(line.rstrip("\n"),) for line in lines])
    (tmp_path / "audit.jsonl").write_text(lines[0] + lines[1][:30])
    with serve(bundle.path, data=tmp_path):
        kept = (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)
        assert kept == [lines[0], lines[1][:30] + "\n", lines[1], lines[2]]


def test_a_write_that_is_refused_leaves_no_line(bundle: Any, tmp_path: Path) -> None:
    wrong = make_items(0, 2)
    wrong[1] |= {"metadata": {"camera": "front"}}
    with serve(bundle.path, data=tmp_path) as at, httpx.Client(base_url=at) as client:
        assert client.put("/v1/items", json={"items": wrong}).status_code == 422
        assert client.delete("/v1/items/nobody").status_code == 404
        assert client.post("/v1/items/delete", json={"filter": {"camera": 99}}).json()["deleted"] == 0
        assert client.get("/v1/items/w-0").status_code == 404
        assert read_lines(tmp_path) == []


def test_an_activation_that_a_crash_kept_from_the_log_is_added(two_bundles: Any, tmp_path: Path) -> None:
    bundles, one, _ = two_bundles
    with serve(one.path, data=tmp_path, bundles=bundles) as at, Client(at) as client:
        client.wait(client.load_model("two"))
        client.activate_model("two")
    lines = read_lines(tmp_path)
    assert [line["action"] for line in lines] == ["models.load", "models.activate"]
    assert {"version": "two", "previous": "one", "missing_items": 0}.items() <= lines[1].items()
    text = (tmp_path / "audit.jsonl").read_text()
    (tmp_path / "audit.jsonl").write_text(text.splitlines(keepends=True)[0])
    for _ in range(2):
        with serve(one.path, data=tmp_path, bundles=bundles) as at:
            models = httpx.get(f"{at}/v1/models").json()["models"]
            assert [model["version"] for model in models if model["state"] == "active"] == ["two"]
        assert (tmp_path / "audit.jsonl").read_text() == text


def test_writes_and_activations_go_on_while_a_model_is_loaded(
    two_bundles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles, one, _ = two_bundles
    loading, go_on = threading.Event(), threading.Event()
    load = loaded_model.load_model

    def load_slowly(*arguments: Any) -> Any:
        loading.set()
        assert go_on.wait(30)
        return load(*arguments)

    with (
        serve(one.path, data=tmp_path, bundles=bundles, deadline=1.0) as at,
        httpx.Client(base_url=at) as client,
    ):
        monkeypatch.setattr(model_registry, "load_model", load_slowly)
        job = client.post("/v1/models", json={"version": "two"}).json()["id"]
        assert loading.wait(30)
        point = one.points["verify"].id
        try:
            assert client.post(f"/v1/operating-points/{point}/activate").status_code == 200
            assert client.put("/v1/items", json={"items": make_items(0, 3)}).status_code == 200
        finally:
            go_on.set()
        while client.get(f"/v1/jobs/{job}").json()["status"] != "done":
            pass
        assert [line["action"] for line in read_lines(tmp_path)] == [
            "models.load",
            "operating-points.activate",
            "items.upsert",
        ]
