"""Needs of the serving image, checked without Docker: the packages it copies, and no torch."""

from __future__ import annotations

import re
import subprocess
import sys

import yaml

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
    assert "USER limen" in lines
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


def test_the_image_can_keep_its_items_in_postgresql() -> None:
    assert "'.[postgres]'" in (ROOT / "docker" / "Dockerfile").read_text()


def test_the_pages_examples_are_read() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    kinds = [document["kind"] for document in documents if "kind" in document]
    assert kinds == ["PersistentVolumeClaim", "Deployment", "Service"]
    (pod,) = (d["spec"]["template"]["spec"] for d in documents if d.get("kind") == "Deployment")
    assert pod["enableServiceLinks"] is False, "LIMEN_PORT would be set to an address"
    assert pod["securityContext"]["runAsUser"] == 10001
