"""What Prometheus is told."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from limen.client import Client, ServiceError
from service.app import create_app
from service.models import gallery_gauges, loaded_model
from service.settings import load_settings
from service.telemetry import prometheus
from service.telemetry.drift import MIN_QUERIES


def told(address: str) -> dict[str, float]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")
    }


@pytest.fixture
def address(start: Any, made: Any, tmp_path: Path) -> str:
    return str(start(made.path, data=tmp_path))


def test_the_gallery_s_gauges_follow_its_writes(address: str) -> None:
    before = told(address)
    assert before['limen_index_rows{state="live"}'] == 320
    assert before["limen_self_recall_ratio"] == before["limen_recall_probe_ratio"] == 1.0
    begun = time.time()
    with Client(address, retries=0) as client:
        client.upsert(
            [{"id": f"new-{n}", "label": "new", "vector": [1.0 + n] * 15 + [0.5]} for n in range(3)]
        )
        client.delete("item-0")
        after = told(address)
        assert after['limen_index_rows{state="live"}'] == 322
        assert after['limen_index_rows{state="deleted"}'] == 1
        assert after["limen_last_fsync_timestamp_seconds"] >= begun
        assert after["limen_wal_bytes"] > 0
        job = client.delete("item-1", rebuild=True).job
        assert job is not None
        client.wait(client.job(job))
    built = told(address)
    assert built['limen_index_rows{state="live"}'] == 321
    assert built['limen_index_rows{state="deleted"}'] == 0
    assert built["limen_index_generation"] > after["limen_index_generation"]
    assert built["limen_last_snapshot_timestamp_seconds"] >= int(begun)


def test_requests_decisions_and_refusals_are_counted(address: str) -> None:
    before = told(address)
    with Client(address, retries=0) as client:
        decided = client.match([{"id": "item-0"}]).results[0].decision
        with pytest.raises(ServiceError):
            client.search([{"id": "nobody"}])
    after = told(address)

    def more(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert more('limen_http_requests_total{code="200",route="/v1/match"}') == 1
    assert more('limen_http_requests_total{code="422",route="/v1/search"}') == 1
    assert more('limen_http_request_duration_seconds_count{route="/v1/match"}') == 1
    assert more(f'limen_decisions_total{{decision="{decided}",operating_point="match"}}') == 1
    assert more('limen_rejected_total{reason="invalid"}') == 1
    assert more("limen_top1_score_count") == 1
    for stage in ("parse", "search", "rescore", "serialize"):
        assert more(f'limen_search_duration_seconds_count{{stage="{stage}"}}') == 1
    assert after["limen_resident_memory_bytes"] > 1 << 20


def test_drift_is_told_once_there_are_enough_queries(address: str, made: Any) -> None:
    rng = np.random.default_rng(0)
    with Client(address, retries=0) as client:
        for row in range(MIN_QUERIES - 1):
            client.search(made.gallery.vectors[row : row + 1], 1)
        client.search([{"id": "item-0"}], 1)
        assert math.isnan(told(address)["limen_embedding_drift_auc"]), "an item is no query from elsewhere"
        client.match(made.gallery.vectors[200:201])
        alike = told(address)["limen_embedding_drift_auc"]
        assert 0.35 < alike < 0.65
        for _ in range(1000):
            client.search(rng.normal(size=(1, 16)) + 2.0, 1)
        assert told(address)["limen_embedding_drift_auc"] > 0.8 > alike


def test_copies_and_probes_follow_rebuilds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_gauges, "PROBE_EVERY", 0.0)
    assert told(address)["limen_index_duplicate_groups"] == 0
    with Client(address, retries=0) as client:
        same = [{"id": f"copy-{n}", "label": "copy", "vector": [1.0] * 16} for n in range(3)]
        client.upsert([*same, {"id": "alone", "label": "copy", "vector": [1.0] * 15 + [2.0]}])
        job = client.delete("item-0", rebuild=True).job
        assert job is not None
        client.wait(client.job(job))
    prometheus.RECALL_PROBE.set(0.0)
    after = told(address)
    assert after["limen_index_duplicate_groups"] == 1
    assert after["limen_recall_probe_ratio"] == 1.0, "asked again, for the gallery has changed"
    prometheus.RECALL_PROBE.set(0.0)
    assert told(address)["limen_recall_probe_ratio"] == 0.0, "not asked again, for nothing has"


def test_no_readiness_before_the_bundle_is_loaded(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, audit = threading.Event(), loaded_model._audit

    def slow(*given: Any) -> Any:
        go.wait(20)
        return audit(*given)

    monkeypatch.setattr(loaded_model, "_audit", slow)
    with TestClient(create_app(load_settings(bundle=made.path))) as client:
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/v1/info"):
            waiting = client.get(path)
            assert waiting.status_code == 503
            assert waiting.json()["type"] == "/problems/not-ready"
            assert waiting.headers["retry-after"] == "1"
        go.set()
        until = time.monotonic() + 20
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
