"""The wheel, installed: it holds every file of the packages, and a user's own code sees its types."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, absent

PACKAGES = [
    pattern.removesuffix("*")
    for pattern in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"][
        "find"
    ]["include"]
]
SCRIPT = """
import numpy as np

import limen
from limen.client import Client, SearchArrays, ServiceError, ServiceUnreachable

vectors, labels = np.eye(4), ["a", "a", "b", "b"]
report: limen.Report = limen.evaluate(vectors, labels)
try:
    point: limen.OperatingPoint = limen.calibrate(vectors, labels, target_far=0.01)
except (limen.CalibrationRefused, limen.InputError) as refusal:
    print(refusal)
gallery: limen.Gallery = limen.open_bundle("bundle")
decision: str = gallery.match(vectors)[0].decision
with Client("http://127.0.0.1:8000") as client:
    try:
        arrays: SearchArrays = client.search_arrays(vectors, k=5)
        opis: float | None = client.consistency().consistency.opis
    except (ServiceError, ServiceUnreachable) as error:
        print(error)
"""
MISTAKES = """
import limen
from limen.client import Client

limen.evaluate([[1.0]], ["a"]).no_such_figure
limen.no_such_name
Client().search([[1.0]], k="many")
"""


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sources, built beside them."""
    if importlib.util.find_spec("setuptools") is None:
        absent("setuptools, which builds the wheel,")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = run("pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "dist", ".", cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel installed, and the packages of this one beside it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def check_types(python: Path, script: str, folder: Path) -> list[str]:
    """The errors that ``mypy --strict`` finds in a script of somebody who has the wheel installed."""
    (folder / "script.py").write_text(script)
    # kept, since checking numpy and pydantic again takes longer than all the rest; `make check` has done it
    cache, checked = (ROOT / ".mypy_cache" / name for name in ("wheel", "3.11"))
    if checked.is_dir() and not cache.is_dir():
        shutil.copytree(checked, cache / checked.name)
    options = ("--strict", "--config-file=", "--cache-dir", cache, "--python-executable", python)
    done = run("mypy", *options, "script.py", cwd=folder)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert files - set(archive.namelist()) == set()


def test_strict_types_of_a_user_s_script(python: Path, tmp_path: Path) -> None:
    assert check_types(python, SCRIPT, tmp_path) == []
    errors = check_types(python, MISTAKES, tmp_path)
    assert [error.rsplit("[", 1)[1] for error in errors] == ["attr-defined]", "attr-defined]", "arg-type]"]
