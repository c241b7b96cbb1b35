"""From an embeddings file to served decisions, through the commands a user types."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddings.files import save_embeddings
from tests.forked_commands import start_server
from tests.limen.conftest import make_classes

LIMEN = [sys.executable, "-c", "from limen.cli.main import main; main()"]


def run(*arguments: object) -> str:
    """Run a command to its end; returns what it printed on stdout."""
    command = [start_server() / "limen", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def post_json(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST a JSON body and read the JSON answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 60 easy classes."""
    folder = tmp_path_factory.mktemp("job")
    save_embeddings(make_classes(60, 8), folder / "embeddings.npz")
    run("build", folder / "embeddings.npz", "--model", "toy", "--out", folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """The address of a service of that bundle on a free port."""
    with subprocess.Popen(
        [*LIMEN, "serve", bundle, "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        address = None
        for line in server.stderr:
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        assert address, "the service said no address"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address[0]}/readyz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address[0]
        server.terminate()
        server.stderr.close()
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)


def test_the_report_and_the_points_are_in_the_bundle(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    report = json.loads(run("evaluate", bundle, "--json"))
    assert manifest["operating_points"]["verify"]
    assert manifest["operating_points"]["match"]
    assert report["model_hash"] == manifest["model_hash"]
    assert report["counts"]["items"] == manifest["counts"]["items"] == 480
    run("verify", bundle)


def test_a_known_item_is_matched_and_an_unknown_query_is_not(address: str) -> None:
    items = make_classes(60, 8)
    unknown = np.random.default_rng(9).normal(size=32)
    answer = post_json(
        f"{address}/v1/match",
        {"queries": [{"vector": items.vectors[17].tolist()}, {"vector": unknown.tolist()}]},
    )
    known, unknown = answer["results"]
    assert (known["decision"], known["label"]) == ("match", items.labels[17])
    assert unknown["decision"] == "unknown"
    assert unknown["score"] < unknown["threshold"] <= known["score"]
    assert unknown["id"] is not None  # the best candidate is given all the same


def test_pairs_are_verified(address: str) -> None:
    answer = post_json(
        f"{address}/v1/verify",
        {"pairs": [{"a": {"id": "0"}, "b": {"id": "1"}}, {"a": {"id": "0"}, "b": {"id": "470"}}]},
    )
    assert [result["decision"] for result in answer["results"]] == ["match", "no_match"]
