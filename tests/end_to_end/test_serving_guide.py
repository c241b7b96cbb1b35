"""Commands of docs/serving.md work on a service with a data folder and two bundles."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.shell import run_shell
from tests.service.bundles import DIMENSION, make_bundle, serve

GUIDE = (ROOT / "docs" / "serving.md").read_text()
PYTHON, SHELL = (re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL) for kind in ("python", "sh"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("guide")
    make_bundle(made / "bundles" / "one")
    make_bundle(made / "bundles" / "two", model="others")
    return made


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    bundles = folder / "bundles"
    with serve(bundles / "one", data=folder / "data", bundles=bundles) as at:
        yield at


def run_script(script: str, folder: Path) -> str:
    script = script.replace("BUNDLE", "bundles/one").replace("VECTOR", json.dumps([1.0] * DIMENSION))
    return run_shell(script, folder)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python(number: int, address: str) -> None:
    exec(PYTHON[number].replace("http://127.0.0.1:8000", address), {})


@pytest.mark.skipif(shutil.which("curl") is None, reason="the shell examples use curl")
def test_curl(address: str, folder: Path) -> None:
    script = next(script for script in SHELL if "curl" in script)
    said = run_script(script.replace("http://127.0.0.1:8000", address), folder)
    assert '"upserted":1' in said
    assert '"decision":' in said
    assert "limen_index_rows" in said


def test_limen_commands(address: str, folder: Path) -> None:
    scripts = [script for script in SHELL if script.startswith("limen ")]
    assert len(scripts) == 2
    for script in scripts:
        run_script(script, folder)
    assert (folder / "restored" / "models").is_dir()


def test_every_endpoint_is_in_the_table() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    named = "".join(line for line in GUIDE.splitlines() if line.startswith("| `"))
    for path in document["paths"]:
        last = re.sub(r"\{.*?\}", "{", path).split("{")[-1] or path.split("{")[0]
        assert last.rstrip("/") in named, path
