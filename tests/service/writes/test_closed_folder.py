"""Whatever a service keeps in its data folder is its owner's alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limen.client import Client
from tests.service.bundles import serve
from tests.service.processes import read_refusal

VECTOR = [float(value) for value in np.random.default_rng(0).normal(size=16)]


def list_open(folder: Path) -> list[str]:
    """What others may read, with its mode."""
    wanted = {True: 0o700, False: 0o600}
    return [
        f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o}"
        for path in (folder, *folder.rglob("*"))
        if path.stat().st_mode & 0o777 != wanted[path.is_dir()]
    ]


@pytest.mark.parametrize("before", ["nothing", "empty", "left open"])
def test_a_data_folder_is_closed_to_others(two_bundles: Any, tmp_path: Path, before: str) -> None:
    bundles, one, _ = two_bundles
    data = tmp_path / "data"
    if before != "nothing":
        data.mkdir(mode=0o755)
    for turn in range(2 if before == "left open" else 1):
        if turn:
            for path in (data, *data.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
        with serve(one.path, data=data, bundles=bundles) as at, Client(at) as client:
            client.upsert([{"id": "a", "label": "a", "vector": VECTOR}])
            client.wait(client.compute_report("gallery"))
            client.wait(client.load_model("two"))
            client.activate_model("two", allow_missing=True)
            client.activate_model("one", allow_missing=True)
            client.wait(client.job(str(client.delete("a", rebuild=True).job)))
            assert list_open(data) == []
        assert list_open(data) == []


def test_a_folder_that_holds_other_things_keeps_its_mode(bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("x")
    (tmp_path / "theirs.txt").chmod(0o644)
    tmp_path.chmod(0o755)
    with serve(bundle.path, data=tmp_path):
        assert sorted(line.split()[0] for line in list_open(tmp_path)) == [".", "theirs.txt"]


def test_a_folder_that_cannot_be_used_is_said_so(bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    line = read_refusal(str(bundle.path), "--data", str(tmp_path / "file"), "--port", "0")
    assert "cannot be the data folder" in line
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "decision.key").write_bytes(b"")
    line = read_refusal(str(bundle.path), "--data", str(tmp_path / "data"), "--port", "0")
    assert "decision.key must hold 32 random bytes, it holds 0" in line
