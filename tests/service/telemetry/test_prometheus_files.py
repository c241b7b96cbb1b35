"""The files for Prometheus and Grafana: they parse, and name metrics and labels that the service has."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
import yaml

from limen.client import Client
from service.monitoring.alert_rules import DEFAULT_RULES
from service.monitoring.signals import SIGNALS
from service.telemetry import prometheus
from tests.conftest import ROOT
from tests.service.bundles import ServiceBundle, serve

DOCKER = ROOT / "docker"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "limen.json"


def read_expressions() -> list[str]:
    """Every expression of the alert rules and of the dashboard."""
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        *(rule["expr"] for group in groups for rule in group["rules"]),
        *(target["expr"] for panel in panels for target in panel["targets"]),
    ]


@pytest.fixture(scope="module")
def exposed(bundle: ServiceBundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a service answers to Prometheus after some requests of each kind."""

    prometheus.ALERT.clear()  # rules of other services that this process had
    data = tmp_path_factory.mktemp("data") / "data"
    with serve(bundle.path, data=data, monitor_interval=0.05) as at, Client(at) as client:
        client.match([bundle.get_vector(0)])
        client.verify([({"id": "item-0"}, {"id": "item-1"})])
        client.search([bundle.get_vector(0)])
        httpx.post(f"{at}/v1/match", json={"queries": []})
        for _ in range(100):
            text = httpx.get(f"{at}/metrics").text
            if "limen_monitor_reading{" in text:
                break
    return text


def test_every_metric_and_label_is_exposed(exposed: str) -> None:
    samples = re.findall(r"^(limen_\w+?)(?:\{(.*)\})? \S+$", exposed, re.MULTILINE)
    labels: dict[str, set[str]] = {}
    values: dict[tuple[str, str], set[str]] = {}
    for name, given in samples:
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', given):
            labels.setdefault(name, set()).add(label)
            values.setdefault((name, label), set()).add(value)
    # a counter that has counted nothing has no sample, but it is described
    described = set(re.findall(r"^# TYPE (limen_\w+) ", exposed, re.MULTILINE))
    known = {name for name, _ in samples} | described
    for expression in read_expressions():
        assert expression.count("(") == expression.count(")")
        metrics = re.findall(r"\b(limen_\w+|up)(?:\{(.*?)\})?", expression)
        assert metrics, expression
        for name, conditions in metrics:
            if name == "up":
                continue
            assert name in known, f"{name} in {expression}"
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', conditions):
                if name in labels:
                    assert label in labels[name], f"{label} of {name} in {expression}"
                if operator == "=" and name in {"limen_monitor_reading", "limen_threshold"}:
                    assert value in values[name, label], expression


def test_labels_have_few_values(exposed: str) -> None:
    """Names that clients could choose are no labels; operating points are made by administrators."""
    assert set(re.findall(r'limen_alert\{gallery="default",rule="(.*?)"\}', exposed)) <= DEFAULT_RULES.keys()
    assert (
        set(re.findall(r'limen_monitor_reading\{gallery="default",signal="(.*?)"\}', exposed))
        == SIGNALS.keys()
    )
    for label in ("label", "id", "query", "path", "client", "key", "alert"):
        assert f'{label}="' not in exposed.replace("_label=", "")


def test_a_rule_says_what_it_is_about() -> None:
    (group,) = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) >= 10
    for rule in group["rules"]:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_dashboard_is_provisioned_as_the_compose_file_mounts_it() -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) >= 10
    assert all(panel["title"] and panel["description"] for panel in board["panels"])
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {entry["uid"] for entry in source["datasources"]}
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == uids
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"], "it starts only when asked for"
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        for volume in services[name]["volumes"]:
            source_path = volume.split(":")[0]
            if source_path.startswith("."):
                assert (DOCKER / source_path).exists(), volume
            else:
                assert source_path in compose["volumes"]
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/limen.yml").read_text())
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["providers"][0]["options"]["path"] in mounted
    scrape = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == ["limen:8000"]
    assert scrape["rule_files"] == [
        volume.split(":")[1] for volume in services["prometheus"]["volumes"] if "alerts" in volume
    ]
