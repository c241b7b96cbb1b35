"""A data folder is its owner's alone, and has one writer whatever is removed from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.gallery.backup import restore_backup, write_backup
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.document_store import StoreInUse
from tests.index.conftest import NEVER, MakeBundle, make_items, make_unit_rows

BASE = make_items(make_unit_rows(np.random.default_rng(0), 30))


def check_closed(folder: Path) -> None:
    """Folders 700, files 600."""
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle(BASE)


def test_all_that_is_kept_is_closed_to_others(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "models" / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        live.upsert([StoredItem("a", "x", BASE.vectors[0])])
        check_closed(data)
        assert (data / "limen.sqlite-wal").exists()
        live.rebuild()
        live.backup(tmp_path / "backup")
        check_closed(data)
    check_closed(data)
    write_backup(data, tmp_path / "copy")
    restore_backup(tmp_path / "backup", tmp_path / "again")
    for folder in ("backup", "copy", "again"):
        check_closed(tmp_path / folder)


def test_what_an_earlier_version_left_open_is_closed(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with LiveGallery.open(bundle, data, NEVER) as live:
        live.upsert([StoredItem("a", "x", BASE.vectors[0])])
        live.rebuild()
    for path in data.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with LiveGallery.open(bundle, data, NEVER):
        check_closed(data)


@pytest.mark.parametrize("removed", ["writer.lock", "checked.json"])
def test_removing_a_file_lets_no_second_writer_in(bundle: Path, tmp_path: Path, removed: str) -> None:
    data = tmp_path / "data"
    code = (
        "from index.gallery.live_gallery import LiveGallery\nimport sys\n"
        "try: LiveGallery.open(sys.argv[1], sys.argv[2])\nexcept Exception as error: print(error)"
    )
    with LiveGallery.open(bundle, data, NEVER) as live:
        (data / removed).unlink()
        for _ in range(2):
            with pytest.raises(StoreInUse, match="one writer"):
                LiveGallery.open(bundle, data, NEVER)
        (data / removed).write_text("")
        other = subprocess.run(
            [sys.executable, "-c", code, bundle, data], capture_output=True, text=True, check=True
        )
        assert "one writer" in other.stdout
        live.upsert([StoredItem("a", "x", BASE.vectors[0])])
    with LiveGallery.open(bundle, data, NEVER) as live:
        assert live.gallery.n_items == 31
