"""The Prometheus metrics follow requests, decisions, writes, rebuilds and drift."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.gallery.background_worker import LOGGER
from index.verified_files import fsync_and_hash
from limen.client import Client, ServiceError
from service.models import gallery_gauges
from service.telemetry import prometheus


def read_text(address: str) -> str:
    """The metrics, without the label that says that they are of the only gallery."""
    text = httpx.get(f"{address}/metrics").text
    return (
        text.replace('{gallery="default"}', "")
        .replace('gallery="default",', "")
        .replace(',gallery="default"', "")
    )


def read_metrics(address: str) -> dict[str, float]:
    lines = read_text(address).splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")
    }


@pytest.fixture
def writable_address(start: Any, bundle: Any, tmp_path: Path) -> str:
    return str(start(bundle.path, data=tmp_path))


def test_the_gallery_s_gauges_follow_its_writes(writable_address: str) -> None:
    before = read_metrics(writable_address)
    assert before['limen_index_rows{state="live"}'] == 320
    assert before["limen_self_recall_ratio"] == before["limen_recall_probe_ratio"] == 1.0
    begun = time.time()
    with Client(writable_address, retries=0) as client:
        client.upsert(
            [{"id": f"new-{n}", "label": "new", "vector": [1.0 + n] * 15 + [0.5]} for n in range(3)]
        )
        client.delete("item-0")
        after = read_metrics(writable_address)
        assert after['limen_index_rows{state="live"}'] == 322
        assert after['limen_index_rows{state="deleted"}'] == 1
        assert after["limen_last_fsync_timestamp_seconds"] >= begun
        assert after["limen_wal_bytes"] > 0
        job = client.delete("item-1", rebuild=True).job
        assert job is not None
        client.wait(client.job(job))
    built = read_metrics(writable_address)
    assert built['limen_index_rows{state="live"}'] == 321
    assert built['limen_index_rows{state="deleted"}'] == 0
    assert built["limen_index_generation"] > after["limen_index_generation"]
    assert built["limen_last_snapshot_timestamp_seconds"] >= int(begun)


def test_a_background_rebuild_that_fails_is_shown_until_one_succeeds(
    writable_address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def wait_for(wanted: float) -> None:
        """Wait until the metric has this value."""
        deadline = time.monotonic() + 30
        while read_metrics(writable_address)["limen_index_rebuild_failed"] != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    monkeypatch.setattr(LOGGER, "handlers", [caplog.handler])
    with Client(writable_address, retries=0) as client:
        wait_for(0)
        assert client.info().rebuild_error is client.ready().detail is None
        assert "rebuild_error" not in httpx.get(f"{writable_address}/v1/info").json()
        monkeypatch.setattr("index.gallery.generation_folders.fsync_and_hash", raise_disk_full)
        for number in range(70):  # more than a fifth of the rows
            client.delete(f"item-{number}")
        wait_for(1)
        assert "No space left" in str(client.info().rebuild_error)
        assert "rebuild of the index failed" in str(client.ready().detail)
        assert any("limen-rebuild failed" in record.getMessage() for record in caplog.records)
        assert client.match([{"id": "item-80"}]).results[0].decision
        monkeypatch.setattr("index.gallery.background_worker.monotonic", lambda: math.inf)  # a minute later
        monkeypatch.setattr("index.gallery.generation_folders.fsync_and_hash", fsync_and_hash)
        client.delete("item-70")
        wait_for(0)
        assert client.info().rebuild_error is client.ready().detail is None


def test_requests_decisions_and_refusals_are_counted(writable_address: str) -> None:
    before = read_metrics(writable_address)
    with Client(writable_address, retries=0) as client:
        decided = client.match([{"id": "item-0"}]).results[0].decision
        with pytest.raises(ServiceError):
            client.search([{"id": "nobody"}])
    after = read_metrics(writable_address)

    def count_new(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert count_new('limen_http_requests_total{code="200",route="/v1/match"}') == 1
    assert count_new('limen_http_requests_total{code="422",route="/v1/search"}') == 1
    assert count_new('limen_http_request_duration_seconds_count{route="/v1/match"}') == 1
    assert count_new(f'limen_decisions_total{{decision="{decided}",operating_point="match"}}') == 1
    assert count_new('limen_rejected_total{reason="invalid"}') == 1
    assert count_new("limen_top1_score_count") == 1
    for stage in ("parse", "search", "rescore", "serialize"):
        assert count_new(f'limen_search_duration_seconds_count{{stage="{stage}"}}') == 1
    assert after["limen_resident_memory_bytes"] > 1 << 20


def test_drift_is_shown_once_there_are_enough_queries(start: Any, bundle: Any, tmp_path: Path) -> None:
    address = start(bundle.path, data=tmp_path, monitor_interval=0.05)
    rows = bundle.gallery.vectors
    near = rows + 0.06 * np.random.default_rng(0).normal(size=rows.shape)
    with Client(address, retries=0) as client:
        for number in range(50):
            client.match([{"id": f"item-{number}"}])
            client.match(rows[:50])
        assert math.isnan(read_metrics(address)["limen_embedding_drift_auc"]), "items are no queries"
        for part in np.split(near, 10):
            client.match(part)
        alike = wait_for_drift(address, lambda auc: not math.isnan(auc))
        assert 0.35 < alike < 0.65
        for _ in range(4):
            for part in np.split(near + 0.4 * np.eye(16)[0], 10):
                client.match(part)
        assert wait_for_drift(address, lambda auc: auc > 0.7) > 0.7


def wait_for_drift(address: str, seen: Callable[[float], bool]) -> float:
    """The gauge once something is seen in it: the monitor looks every few hundredths of a second."""
    until = time.monotonic() + 60
    while not seen(auc := read_metrics(address)["limen_embedding_drift_auc"]) and time.monotonic() < until:
        time.sleep(0.05)
    return auc


def test_copies_and_probes_follow_rebuilds(writable_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_gauges, "PROBE_EVERY", 0.0)
    assert read_metrics(writable_address)["limen_index_duplicate_groups"] == 0
    with Client(writable_address, retries=0) as client:
        same = [{"id": f"copy-{n}", "label": "copy", "vector": [1.0] * 16} for n in range(3)]
        client.upsert([*same, {"id": "alone", "label": "copy", "vector": [1.0] * 15 + [2.0]}])
        job = client.delete("item-0", rebuild=True).job
        assert job is not None
        client.wait(client.job(job))
    prometheus.RECALL_PROBE.labels("default").set(0.0)
    after = read_metrics(writable_address)
    assert after["limen_index_duplicate_groups"] == 1
    assert after["limen_recall_probe_ratio"] == 1.0, "measured again, for the gallery has changed"
    prometheus.RECALL_PROBE.labels("default").set(0.0)
    assert read_metrics(writable_address)["limen_recall_probe_ratio"] == 0.0, (
        "not measured again, for nothing has changed"
    )


def test_metrics_count_what_happened(client: Client, address: str) -> None:
    client.match([{"id": "item-0"}])
    httpx.post(address + "/v1/search", content=b"{")
    text = read_text(address)
    for name in (
        'limen_http_requests_total{code="200",route="/v1/match"}',
        "limen_http_request_duration_seconds_bucket",
        'limen_search_duration_seconds_count{stage="search"}',
        "limen_inflight_requests",
        'limen_rejected_total{reason="invalid"}',
        "limen_decisions_total",
        "limen_top1_score_bucket",
        "limen_margin_top1_top2_bucket",
        'limen_threshold{endpoint="match"}',
        'limen_index_rows{state="live"} 320.0',
        "limen_index_unreachable_rows",
        "limen_self_recall_ratio 1.0",
        "limen_index_load_seconds",
        "limen_resident_memory_bytes",
    ):
        assert name in text, name
