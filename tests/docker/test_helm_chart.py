"""The Helm chart: rendered as helm does, held to Kubernetes' schemas, and to what the service needs."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from service.settings import ALL_FIELDS
from tests.conftest import ROOT

chart = pytest.importorskip("helm_python.chart")
errors = pytest.importorskip("helm_python.errors")
kubernetes_validate = pytest.importorskip("kubernetes_validate")
CHART = ROOT / "docker" / "helm" / "limen"
KUBERNETES = ("1.27", "1.37")
KEYS = {"keys": {"secret": "limen-keys"}}
ONE = KEYS
SEVERAL = {
    "replicas": 2,
    "database": {"secret": "limen-database"},
    "milvus": {"uri": "http://milvus:19530", "tokenSecret": "milvus"},
    "autoscaling": {"enabled": True, "min": 2},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
        "to": [{"to": [{"podSelector": {"matchLabels": {"app": "postgres"}}}], "ports": [{"port": 5432}]}],
    },
    "podAnnotations": {"a": "b"},
    "monitoring": {"serviceMonitor": True, "keySecret": "limen-metrics"},
}
READ_ONLY = {
    **KEYS,
    "readOnly": True,
    "replicas": 3,
    "decisionKey": {"secret": "limen-decision-key"},
    "bundle": {"path": "faces/v2", "models": "faces"},
    "settings": {"keep_unknowns": "off", "max_k": 100},
    "extraEnv": [{"name": "LIMEN_WEBHOOK_URL", "value": "https://example.org/hook"}],
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "image": {"pullSecrets": [{"name": "registry"}]},
}
TENANTS = {**KEYS, "galleries": {"voices": {"bundle": "voices", "hosts": ["voices.example.org"]}}}
DEPLOYMENTS = {"one": ONE, "several": SEVERAL, "read only": READ_ONLY, "tenants": TENANTS}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents of a release called ``shop``."""
    with chart.Chart.load(CHART) as loaded:
        files = loaded.render(values, name="shop", namespace="limen")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def find(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def find_pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        document["spec"]["template"]["spec"]
        for document in documents
        if "template" in document.get("spec", {})
    ]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_is_rendered_is_valid(name: str) -> None:
    report = chart.lint(CHART, DEPLOYMENTS[name], strict=True)
    assert [message for message in report["messages"] if message["severity"] > 1] == report["errors"] == []
    for document in render(DEPLOYMENTS[name]):
        if document["kind"] == "ServiceMonitor":  # of the Prometheus operator, not of Kubernetes
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_have_no_rights_and_no_secret_in_their_text(name: str) -> None:
    documents = render(DEPLOYMENTS[name])
    for pod in find_pods(documents):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001, "the user of the image"
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False, "LIMEN_PORT would be set to an address"
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        for variable in container["env"]:
            if re.search("TOKEN|SECRET|DATABASE_URL|DECISION_KEY", variable["name"]):
                assert variable.keys() == {"name", "valueFrom"}
            known = variable["name"].removeprefix("LIMEN_").lower()
            assert known in ALL_FIELDS.keys() | {"decision_key"}, variable["name"]
    kinds = {document["kind"] for document in documents}
    assert "Secret" not in kinds
    assert kinds >= {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"}


def test_several_pods_share_a_database_that_a_job_prepares() -> None:
    documents = render(SEVERAL)
    job, pods = find(documents, "Job"), find(documents, "StatefulSet")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["limen", "prepare-database"]
    assert "replicas" not in pods["spec"], "the autoscaler says how many"
    scaler = find(documents, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == pods["metadata"]["name"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "limen_inflight_requests"
    selected = find(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [document for document in documents if document["kind"] == "Service"]
    assert len([one for one in services if selected.items() <= one["metadata"]["labels"].items()]) == 1
    policy = find(documents, "NetworkPolicy")["spec"]
    assert policy["ingress"][0]["from"] == SEVERAL["networkPolicy"]["from"]  # type: ignore[index]
    assert [rule["ports"][0]["port"] for rule in policy["egress"]] == [53, 5432]
    job_labels = job["spec"]["template"]["metadata"]["labels"]
    assert not pods["spec"]["selector"]["matchLabels"].items() <= job_labels.items()


def test_galleries_find_their_bundles_where_the_volume_is() -> None:
    documents = render(TENANTS)
    written = yaml.safe_load(find(documents, "ConfigMap")["data"]["galleries.yaml"])
    assert written == {"voices": {"bundle": "/bundle/voices", "hosts": ["voices.example.org"]}}
    pod = find(documents, "StatefulSet")["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert variables["LIMEN_GALLERIES"] == f"{mounts['galleries']}/galleries.yaml"
    assert mounts["bundle"] == "/bundle"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "needs keys"),
        ({**KEYS, "replicas": 2}, "set database.secret"),
        ({**KEYS, "autoscaling": {"enabled": True}}, "set database.secret"),
        ({**KEYS, "readOnly": True, "database": {"secret": "db"}}, "leave out database.secret"),
        ({**KEYS, "replica": 2}, "replica"),
        ({**KEYS, "galleries": {"Faces": {"bundle": "x"}}}, "'Faces' does not match"),
    ],
)
def test_what_cannot_be_served_is_refused(values: dict[str, Any], match: str) -> None:
    report = chart.lint(CHART, values, strict=True)
    with pytest.raises(errors.HelmError) as refused:  # lint only logs what a template refuses
        render(values)
    assert match in " ".join([*report["errors"], str(refused.value)])


def test_the_chart_is_of_this_version() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert described["version"] == described["appVersion"] == version
