"""``/v1/monitoring`` and ``/v1/alerts`` over HTTP: figures, restarts, acknowledgement, read-only services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from api_schemas.http.monitoring import AlertList, Monitoring
from common.errors import ConfigError
from limen.client import Client, ServiceError
from service.app import create_app
from service.settings import load_settings
from tests.service.bundles import ServiceBundle, serve
from tests.service.conftest import Start

QUICK = {"monitor_interval": 0.05}
T = AlertList | Monitoring


def wait_for(look: Callable[[], T], seen: Callable[[T], bool]) -> T:
    """The answer once something is seen in it; the monitor looks every few hundredths of a second."""

    until = time.monotonic() + 60
    while not seen(found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    assert seen(found), found
    return found


def ask(client: Client, bundle: ServiceBundle, n: int, offset: float = 0.0, seed: int = 0) -> None:
    """Queries near items, in requests of twenty; an offset of all of them is another sensor."""
    rng = np.random.default_rng(seed)
    rows = bundle.gallery.vectors[rng.integers(0, len(bundle.gallery), n)]
    noisy = rows + 0.06 * rng.normal(size=rows.shape) + offset * np.eye(rows.shape[1])[0]
    for start in range(0, n, 20):
        client.match(noisy[start : start + 20])


def test_decisions_are_counted_by_outcome_and_kept_through_a_restart(
    bundle: ServiceBundle, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with serve(bundle.path, data=data, **QUICK) as at, Client(at) as client:
        ask(client, bundle, 60)
        unknown = -bundle.gallery.vectors.mean(axis=0)
        client.match(np.stack([unknown] * 7))
        client.verify([({"id": "item-0"}, {"id": "item-1"}), ({"id": "item-0"}, {"id": "item-300"})])
        found = wait_for(client.monitoring, lambda answer: sum(answer.verify.decisions) == 2)  # type: ignore[union-attr]
        before = client.monitoring()
    assert isinstance(found, Monitoring)
    assert (found.kept, found.step, len(found.times)) == ("database", "minute", 60)
    assert sum(found.match.decisions) == 67
    assert 7 <= sum(found.match.unknown) < 67
    assert sum(found.verify.unknown) == 1
    assert sum(found.requests.answered) >= 5
    with serve(bundle.path, data=data, **QUICK) as at, Client(at) as client:
        after = client.monitoring()
        assert sum(after.match.decisions) == sum(before.match.decisions) == 67
        assert after.match.unknown[-3:] == before.match.unknown[-3:] or sum(after.match.unknown) == sum(
            before.match.unknown
        )
        for step in ("hour", "day"):
            whole = client.monitoring(90 * 86_400, step)  # type: ignore[arg-type]
            assert sum(whole.match.decisions) == 67
        (histogram,) = [entry for entry in after.scores if entry.endpoint == "match"]
        assert sum(histogram.counts) == 67
        assert histogram.threshold == pytest.approx(bundle.points["match"].threshold)
        assert len(histogram.edges) == len(histogram.counts) + 1


def test_drift_raises_an_alert_that_is_acknowledged_and_survives_a_restart(
    bundle: ServiceBundle, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with serve(bundle.path, data=data, **QUICK) as at, Client(at) as client:
        ask(client, bundle, 500, offset=0.9)
        found = wait_for(client.alerts, lambda answer: bool(answer.alerts))  # type: ignore[union-attr]
        assert isinstance(found, AlertList)
        alert = found.alerts[0]
        assert alert.rule in {"score-drift", "query-drift"}
        assert alert.todo
        seen = client.acknowledge_alert(alert.id, "the new lens")
        assert (seen.acknowledged_by, seen.note, seen.state) == ("anyone", "the new lens", "firing")
        with pytest.raises(ServiceError, match="There is no alert"):
            client.acknowledge_alert("1-absent")
        refused = httpx.post(f"{at}/v1/alerts/{alert.id}/acknowledge", json={"note": "x" * 501})
        assert refused.status_code == 422
    with serve(bundle.path, data=data, **QUICK) as at, Client(at) as client:
        kept = {entry.id: entry for entry in client.alerts().alerts}[alert.id]
        assert (kept.acknowledged_by, kept.note) == ("anyone", "the new lens")
    lines = [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["alert"]) for line in lines if line["action"].startswith("alerts")] == [
        ("alerts.acknowledge", alert.id)
    ]


def test_a_read_only_service_counts_in_memory(bundle: ServiceBundle, start: Start) -> None:
    at = start(bundle.path, **QUICK)
    with Client(at) as client:
        ask(client, bundle, 20)
        found = wait_for(client.monitoring, lambda answer: sum(answer.match.decisions) == 20)  # type: ignore[union-attr]
        assert isinstance(found, Monitoring)
        assert found.kept == "memory"
        assert {reading.signal for reading in found.now} >= {"score_stability", "query_drift", "latency_p99"}
        assert all(reading.detail for reading in found.now)


def test_without_a_point_the_service_still_counts(bundle_without_points: ServiceBundle, start: Start) -> None:
    at = start(bundle_without_points.path, **QUICK)
    with Client(at) as client:
        client.search([bundle_without_points.get_vector(0)])
        found = wait_for(
            client.monitoring, lambda answer: sum(answer.requests.answered) > 0 and bool(answer.now)
        )  # type: ignore[union-attr]
        assert isinstance(found, Monitoring)
        assert (
            "no operating point" in {reading.signal: reading.detail for reading in found.now}["query_drift"]
        )
        assert all(rule.state != "firing" for rule in client.alerts().rules)


def test_ranges_are_bounded(address: str) -> None:
    for query, says in (
        ("seconds=1", "send 60 or more"),
        ("seconds=99999999999", "315360000 or less"),
        ("seconds=8640000&step=minute", "LIMEN_MAX_MONITORING_STEPS"),
        ("step=week", "minute"),
    ):
        refused = httpx.get(f"{address}/v1/monitoring?{query}")
        assert refused.status_code == 422, query
        assert says in refused.text
    longest = httpx.get(f"{address}/v1/monitoring?seconds=172800&step=minute")
    assert longest.status_code == 200
    assert len(longest.content) < 2_000_000


def test_a_filtered_query_is_counted_but_not_compared(bundle: ServiceBundle, start: Start) -> None:
    at = start(bundle.path, **QUICK)
    with Client(at) as client:
        for _ in range(30):
            client.match(bundle.gallery.vectors[:10] + 0.01, filter={"camera": 1})
            client.match([{"id": f"item-{number}"} for number in range(5)])
        found = wait_for(client.monitoring, lambda answer: sum(answer.match.decisions) == 450)  # type: ignore[union-attr]
        assert isinstance(found, Monitoring)
        readings = {reading.signal: reading for reading in found.now}
        assert readings["score_stability"].value is None


def test_a_rule_file_that_is_wrong_ends_the_start(bundle: ServiceBundle, tmp_path: Path) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text("rules: {latencyy: {above: 1}}")
    with pytest.raises(ConfigError, match="did you mean 'latency'"):
        create_app(load_settings(bundle=bundle.path, alerts_file=file))


def test_the_webhook_needs_a_secret(bundle: ServiceBundle) -> None:
    with pytest.raises(ConfigError, match="LIMEN_WEBHOOK_SECRET"):
        load_settings(bundle=bundle.path, webhook_url="https://alerts.example.org/limen")
    for given in ({"webhook_url": "ftp://a"}, {"webhook_secret": "short"}):
        with pytest.raises(ConfigError, match="LIMEN_WEBHOOK"):
            load_settings(bundle=bundle.path, **given)
    settings = load_settings(
        bundle=bundle.path, webhook_url="https://a.example", webhook_secret="not to be shown to you"
    )
    assert "not to be shown" not in repr(settings)
