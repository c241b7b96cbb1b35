"""What holds the house together: arrows between rooms, no torch where decisions are served, no pickle."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS: list[str] = PROJECT["tool"]["importlinter"]["root_packages"]
MOST_FILES = 16  # Python files a folder holds, so that it is read at a glance; losses are a list of methods
HEAVY = "torch faiss onnxruntime fastapi numba matplotlib pyarrow"


def modules_after(code: str) -> set[str]:
    """Modules in memory after this code ran in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def imported_by(code: str) -> set[str]:
    """Top-level packages in memory after this code ran in a fresh interpreter."""
    return {name.partition(".")[0] for name in modules_after(code)}


def test_arrows_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_no_import_circle() -> None:
    graph = grimp.build_graph(*ROOMS, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 200
    TopologicalSorter(imports).prepare()  # raises CycleError with the circle


def test_a_folder_is_read_at_a_glance() -> None:
    folders = Counter(path.parent for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py"))
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder, count in folders.items()
        if count > MOST_FILES and folder.name != "losses"
    }
    assert crowded == {}


def test_every_package_is_typed_for_those_who_import_it() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").is_file()] == []


def test_opening_a_finished_run_loads_neither_losses_nor_the_loop() -> None:
    loaded = modules_after("from training.run_folder.run_folder import Run")
    assert "training.models.network" in loaded
    assert [name for name in loaded if name.startswith(("training.losses", "training.loop"))] == []


@pytest.mark.parametrize(
    "modules", ["service.app, service.server", "index.gallery.gallery, index.bundle", "encoder.encoder"]
)
def test_what_serves_runs_without_torch(modules: str) -> None:
    assert "torch" not in imported_by(f"import {modules}")


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    assert imported_by("import limen.cli.main").isdisjoint(HEAVY.split())


def test_every_benchmark_can_be_started() -> None:
    names = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py")) if path.stem != "__init__"]
    imported = imported_by("\n".join(f"import benchmarks.{name}" for name in names))
    assert len(names) > 5
    assert "benchmarks" in imported


def test_nothing_is_pickled() -> None:
    pattern = re.compile(r"\b(import pickle|pickle\.loads?|torch\.load|joblib|allow_pickle=True|dill)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_public_surface() -> None:
    import limen

    assert limen.__all__ == sorted(limen.__all__)
    for name in limen.__all__:
        assert getattr(limen, name).__doc__
