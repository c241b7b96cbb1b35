"""Needs of the serving image, checked without Docker: the packages it copies, and no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions, version

import yaml

from scripts import sbom
from service.settings import ALL_FIELDS
from tests.conftest import ROOT

NO_TORCH = """
import sys
for name in ("torch", "pytorch_metric_learning", "training"):
    sys.modules[name] = None
import service.server, service.app, limen.cli.main, limen.client
"""


def test_the_service_needs_neither_torch_nor_training() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_dockerfile_copies_every_room_that_serves() -> None:
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    copied = {
        line.split()[1] for line in lines if line.startswith("COPY ") and line.split()[1] == line.split()[2]
    }
    rooms = {"api_schemas", "common", "decision", "embeddings", "encoder", "evaluation", "index", "limen"} | {
        "service"
    }
    assert copied == rooms
    kept = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert rooms <= {line.removeprefix("!") for line in kept if line.startswith("!")}
    assert "USER 10001:10001" in lines, "a number: Kubernetes checks that it is not root"
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_the_compose_file_listens_on_loopback_and_mounts_the_folder_of_the_keys() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for port in services["limen"]["ports"])
    file = re.search(r"LIMEN_API_KEYS_FILE=(\S+)", (ROOT / "docker" / "Dockerfile").read_text())
    assert file is not None
    folder = file[1].rpartition("/")[0]
    assert f"keys:{folder}:ro" in services["limen"]["volumes"], "a mounted file would stay the old one"
    assert services["keys"]["volumes"] == [f"keys:{folder}"]
    assert "ports" not in services["keys"]


def test_the_image_has_what_a_cluster_needs() -> None:
    assert "'.[postgres,milvus,otel]'" in (ROOT / "docker" / "Dockerfile").read_text()


def test_a_cluster_of_two_replicas_waits_for_its_parts() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.cluster.yaml").read_text())["services"]
    assert services.keys() >= {"limen-a", "limen-b", "postgres", "milvus", "prometheus", "grafana", "gateway"}
    volumes = set()
    for name in ("limen-a", "limen-b"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service, "reached by the gateway alone"
        waits = {part: how["condition"] for part, how in service["depends_on"].items()}
        assert waits == {
            "postgres": "service_healthy",
            "milvus": "service_healthy",
            "prepare": "service_completed_successfully",
        }
        volumes |= set(service["volumes"])
        for variable in service["environment"]:
            assert variable.removeprefix("LIMEN_").lower() in ALL_FIELDS
    assert len(volumes) == 3, "one bundle, and a data folder for each"
    assert all("healthcheck" in services[name] for name in ("postgres", "milvus"))
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert (ROOT / "docker" / volume.partition(":")[0]).exists(), volume
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus" / "cluster.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["limen-a:8000", "limen-b:8000"]
    gateway = (ROOT / "docker" / "gateway" / "nginx.conf").read_text()
    assert all(f"server {name}:8000" in gateway for name in ("limen-a", "limen-b"))


def test_the_bill_of_materials_names_what_is_installed() -> None:
    document = sbom.build_document(distributions())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "limen"
    components = {one["name"].lower(): one for one in document["components"]}
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert components["numpy"]["licenses"]
    refs = {one["bom-ref"] for one in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    needed = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert needed.keys() == refs, "every package once"
    assert set().union(*needed.values()) <= refs
    assert components["numpy"]["purl"] in needed[f"pkg:pypi/scipy@{version('scipy')}"]
    uninstalled = sbom.build_document([])
    assert uninstalled["components"] == uninstalled["dependencies"] == []


def test_the_pages_examples_are_read() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    kinds = [document["kind"] for document in documents if "kind" in document]
    assert kinds == ["PersistentVolumeClaim", "Deployment", "Service"]
    (pod,) = (d["spec"]["template"]["spec"] for d in documents if d.get("kind") == "Deployment")
    assert pod["enableServiceLinks"] is False, "LIMEN_PORT would be set to an address"
    assert pod["securityContext"]["runAsUser"] == 10001
