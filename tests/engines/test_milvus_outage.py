"""Milvus goes away and comes back under a service: 503 with Retry-After, no restart, no write lost."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.galleries import hash_model, make_gallery, make_queries, write_gallery
from tests.engines.milvus_server import URI, LocalServer, run_local_server
from tests.service.bundles import serve

QUERIES: dict[str, Any] = {"queries": [{"vector": row.tolist()} for row in make_queries()]}
TOLD = ("decision", "label", "id", "similarity", "score", "threshold")


def tell(answer: httpx.Response) -> list[tuple[Any, ...]]:
    """The decisions, without their signed ids."""
    assert answer.status_code == 200, answer.text
    return [tuple(result[name] for name in TOLD) for result in answer.json()["results"]]


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_is_said_while_milvus_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_gallery(tmp_path / "bundle", "milvus", hash_model("outage"), 0.9)
    item = {"id": "written", "label": "new", "vector": make_queries()[13].tolist()}
    with run_local_server() as milvus:
        monkeypatch.setenv(URI, milvus.uri)
        with serve(bundle, data=tmp_path / "data") as at, httpx.Client(base_url=at, timeout=30) as client:
            before = tell(client.post("/v1/match", json=QUERIES))
            milvus.kill()
            for _ in range(2):
                for answer in (
                    client.post("/v1/match", json=QUERIES),
                    client.post("/v1/search", json=QUERIES),
                    client.get("/readyz"),
                ):
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["type"] == "/problems/engine-unavailable"
                    assert answer.headers["retry-after"] == "5"
                    assert "Traceback" not in answer.text
            assert client.get("/livez").status_code == 200
            assert client.get("/metrics").status_code == 200
            # what needs no engine goes on
            assert client.put("/v1/items", json={"items": [item]}).status_code == 200
            few = {**QUERIES, "filter": {"label": "c07"}}
            assert client.post("/v1/match", json=few).status_code == 200
            assert client.post("/v1/search", json={**QUERIES, "exact": True}).status_code == 200
            milvus.start()
            wait_until_ready(client)
            after = tell(client.post("/v1/match", json=QUERIES))
            assert after[13][2] == "written"
            assert [one for n, one in enumerate(after) if n != 13] == [
                one for n, one in enumerate(before) if n != 13
            ]


@pytest.mark.full
def test_killed_again_and_again_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes of reads and writes while the server is killed at random moments."""
    bundle = write_gallery(tmp_path / "bundle", "milvus", hash_model("kills"), 0.9)
    rng = random.Random(5)
    acknowledged: list[str] = []
    wrong: list[Any] = []
    counts = {"decided": 0, "503": 0}
    stop = threading.Event()
    with run_local_server() as milvus:
        monkeypatch.setenv(URI, milvus.uri)
        with serve(bundle, data=tmp_path / "data", max_wait=5) as at:
            with httpx.Client(base_url=at, timeout=60) as client:
                expected = tell(client.post("/v1/match", json=QUERIES))

            def read() -> None:
                with httpx.Client(base_url=at, timeout=60) as client:
                    while not stop.is_set():
                        answer = client.post("/v1/match", json=QUERIES)
                        if answer.status_code == 200:
                            counts["decided"] += 1
                            if tell(answer) != expected:
                                wrong.append(answer.json())
                        else:
                            counts["503"] += answer.status_code == 503
                            if answer.status_code not in (429, 503) or "retry-after" not in answer.headers:
                                wrong.append(answer.text)

            def write() -> None:
                far = (-make_gallery().vectors.mean(axis=0)).tolist()  # near to no query
                with httpx.Client(base_url=at, timeout=60) as client:
                    for number in range(1_000_000):
                        if stop.is_set():
                            return
                        item = {"id": f"w{number}", "label": "w", "vector": far}
                        if client.put("/v1/items", json={"items": [item]}).status_code == 200:
                            acknowledged.append(item["id"])
                        time.sleep(0.02)

            threads = [threading.Thread(target=work) for work in (read, read, write)]
            for thread in threads:
                thread.start()
            _kill_again_and_again(milvus, rng, seconds=120)
            stop.set()
            for thread in threads:
                thread.join()
            with httpx.Client(base_url=at, timeout=60) as client:
                wait_until_ready(client)
                assert tell(client.post("/v1/match", json=QUERIES)) == expected
                missing = [
                    name for name in acknowledged if client.get(f"/v1/items/{name}").status_code != 200
                ]
    assert wrong == []
    assert missing == []
    assert min(counts["decided"], counts["503"], len(acknowledged)) > 0
    print(counts, len(acknowledged))  # noqa: T201


def _kill_again_and_again(milvus: LocalServer, rng: random.Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(1, 6))
        milvus.kill()
        time.sleep(rng.uniform(0.2, 4))
        milvus.start()
