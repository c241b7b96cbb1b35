"""A disk that is really full: acknowledged writes stay, errors say so, and all goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from common.errors import LimenError
from index.gallery.backup import restore_backup
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.document_store import StoreFailed
from tests.conftest import absent
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows

SIZE = 8 << 20
PAGE = 4_096
BASE = make_items(make_unit_rows(np.random.default_rng(0), 300, 64), place=np.arange(300))
NEW = make_unit_rows(np.random.default_rng(1), 400, 64)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 8 MiB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        absent("a file system of its own (needs the right to mount)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int = 0) -> None:
    """Leave just so many bytes."""
    with (disk / "filler").open("ab", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        file.truncate(max(0, file.tell() - left))


def make_room(disk: Path) -> None:
    """Take the filler away."""
    (disk / "filler").unlink()


def new(*numbers: int) -> list[StoredItem]:
    """Items n0, n1, ..., each with a vector of its own."""
    return [StoredItem(f"n{number}", "new", NEW[number], {"place": -number}) for number in numbers]


def last_written(live: LiveGallery) -> int:
    """Write items one by one until one is not taken; returns the number of the one before."""
    for number in range(300):
        try:
            live.upsert(new(number))
        except StoreFailed:
            return number - 1
    return 300


def check(live: LiveGallery, *numbers: int) -> None:
    """Exactly these new items are there, in the database and in searches."""
    names = {*BASE.ids.tolist(), *(f"n{number}" for number in numbers)}
    assert {item.id for item in live.gallery.page(None, 1_000)} == names
    for exact in (False, True):
        assert {hit.id for hit in live.gallery.search(NEW[0], 1_000, exact=exact)[0]} == names
    assert live.gallery.probe(100)[0] == live.gallery.probe(100)[1]


def test_writes_fail_clearly_and_go_on_when_there_is_room(make_bundle: MakeBundle, disk: Path) -> None:
    bundle = make_bundle(BASE, make_small_config("hnsw"))
    with LiveGallery.open(bundle, disk / "data", NEVER) as live:
        fill(disk, 20 * PAGE)
        kept = last_written(live)
        assert 0 <= kept < 300
        with pytest.raises(StoreFailed, match=r"full.*not acknowledged"):
            live.upsert(new(kept + 1))
        check(live, *range(kept + 1))
        with pytest.raises(StoreFailed, match="full"):
            live.delete(BASE.ids.tolist())
        check(live, *range(kept + 1))
        make_room(disk)
        live.upsert(new(399))
        check(live, *range(kept + 1), 399)
        fill(disk)
    with suppress(LimenError), LiveGallery.open(bundle, disk / "data", NEVER) as live:
        check(live, *range(kept + 1), 399)
    make_room(disk)
    with LiveGallery.open(bundle, disk / "data", NEVER) as live:
        check(live, *range(kept + 1), 399)
        live.rebuild()
        check(live, *range(kept + 1), 399)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "hnsw_sq8"])
def test_a_rebuild_may_stop_anywhere(make_bundle: MakeBundle, disk: Path, kind: str) -> None:
    bundle = make_bundle(BASE, make_small_config(kind))
    with LiveGallery.open(bundle, disk / "data", NEVER) as live:
        live.upsert(new(0, 1))
        live.rebuild()
        (generation,) = (disk / "data" / "generations").iterdir()
        needed = sum(file.stat().st_size for file in generation.iterdir())
        failed = built = 0
        for left in range(0, needed + 12 * PAGE, 4 * PAGE):
            live.upsert(new(2))
            live.delete(["n2"])
            fill(disk, left)
            try:
                live.rebuild()
                built += 1
            except StoreFailed:
                failed += 1
            assert len(list((disk / "data" / "generations").iterdir())) == 1
            check(live, 0, 1)
            make_room(disk)
        assert failed > needed // (6 * PAGE)
        assert built
    with LiveGallery.open(bundle, disk / "data", NEVER) as live:
        check(live, 0, 1)


def test_a_backup_may_stop_anywhere(make_bundle: MakeBundle, disk: Path, tmp_path: Path) -> None:
    bundle = make_bundle(BASE, make_small_config("hnsw"))
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert(new(0, 1))
        live.rebuild()
        live.backup(disk / "whole")
        needed = sum(file.stat().st_size for file in (disk / "whole").rglob("*"))
        for left in range(0, needed - PAGE, 8 * PAGE):
            fill(disk, left)
            with pytest.raises(StoreFailed, match="Nothing of it is left"):
                live.backup(disk / "part")
            assert {entry.name for entry in disk.iterdir()} == {"whole", "filler"}
            make_room(disk)
        live.backup(disk / "again")
        check(live, 0, 1)
    fill(disk, 8 * PAGE)
    with pytest.raises(StoreFailed, match="could not be written"):
        restore_backup(disk / "again", disk / "restored")
    make_room(disk)
    restore_backup(disk / "again", disk / "restored")
    with LiveGallery.open(bundle, disk / "restored", NEVER) as live:
        check(live, 0, 1)
