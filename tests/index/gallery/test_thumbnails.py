"""Thumbnails beside items: of bundles, taken over, replaced, erased, backed up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from api_schemas.manifest import THUMBNAIL_ENDS_FILE, THUMBNAILS_FILE
from common.errors import BundleError
from index.bundle import read_bundle, verify_bundle
from index.gallery.backup import restore_backup
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.item_store import DATABASE_FILE
from tests.index.conftest import NEVER, MakeBundle, make_items, make_unit_rows

ROWS = make_unit_rows(np.random.default_rng(0), 20)
PICTURES = [None if row % 4 == 3 else f"picture of i{row}".encode() * (row + 1) for row in range(20)]
BY_ID = {f"i{row}": picture for row, picture in enumerate(PICTURES) if picture is not None}
ALL = [f"i{row}" for row in range(20)]


def make(make_bundle: MakeBundle, name: str = "bundle", pictures: bool = True) -> Path:
    return make_bundle(make_items(ROWS), name=name, thumbnails=PICTURES if pictures else ())


def test_a_bundle_has_the_thumbnails_of_its_items(make_bundle: MakeBundle) -> None:
    bundle = make(make_bundle)
    verify_bundle(bundle)
    with Gallery.open(bundle) as gallery:
        assert gallery.read_thumbnails(ALL) == BY_ID
        assert gallery.read_thumbnails(["i2", "nobody", "i3"]) == {"i2": BY_ID["i2"]}


def test_a_bundle_without_has_no_files_of_them(make_bundle: MakeBundle) -> None:
    for pictures in (False, True):
        bundle = make_bundle(make_items(ROWS), name="none", thumbnails=[None] * 20 if pictures else ())
        assert not {THUMBNAILS_FILE, THUMBNAIL_ENDS_FILE} & read_bundle(bundle).manifest.files.keys()
        with Gallery.open(bundle) as gallery:
            assert gallery.read_thumbnails(ALL) == {}


def test_damaged_thumbnails_are_found(make_bundle: MakeBundle) -> None:
    bundle = make(make_bundle)
    content = bytearray((bundle / THUMBNAILS_FILE).read_bytes())
    content[7] ^= 1
    (bundle / THUMBNAILS_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"thumbnails\.bin is not the file"):
        verify_bundle(bundle)
    (bundle / THUMBNAILS_FILE).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"thumbnails\.bin has"):
        Gallery.open(bundle)


def test_a_data_folder_takes_them_over(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make(make_bundle)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        assert live.gallery.read_thumbnails(ALL) == BY_ID
        live.rebuild()
        assert live.gallery.read_thumbnails(ALL) == BY_ID
        live.backup(tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    without = make(make_bundle, "without", pictures=False)
    with LiveGallery.open(without, tmp_path / "restored", NEVER) as live:
        assert live.gallery.read_thumbnails(ALL) == BY_ID


def test_a_bundle_that_has_them_later_gives_them_to_items_as_they_were(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    without, bundle = make(make_bundle, "without", pictures=False), make(make_bundle)
    with LiveGallery.open(without, tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem("i0", "c0", ROWS[5])])
        live.delete(["i1"])
        live.upsert([StoredItem("i2", "c2", ROWS[6])], thumbnails={"i2": b"new"})
        assert live.gallery.read_thumbnails(ALL) == {"i2": b"new"}
    for _ in range(2):
        with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
            unchanged = {name: picture for name, picture in BY_ID.items() if name not in {"i0", "i1", "i2"}}
            assert live.gallery.read_thumbnails(ALL) == unchanged | {"i2": b"new"}


def test_they_are_replaced_and_erased_with_their_item(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with LiveGallery.open(make(make_bundle), tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem("i0", "c0", ROWS[1])], thumbnails={"i0": b"another"})
        live.upsert([StoredItem("i1", "c1", ROWS[1])])
        live.delete(["i2"])
        live.delete_where({"label": "c4"})
        gone = {"i1", "i2", "i4", "i14"}
        expected = {name: picture for name, picture in BY_ID.items() if name not in gone} | {"i0": b"another"}
        assert live.gallery.read_thumbnails(ALL) == expected
        live.upsert([StoredItem("i2", "c2", ROWS[2])])
        assert live.gallery.read_thumbnails(ALL) == expected, "what was erased does not come back"
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE_FILE)) as database:
        assert {row[0] for row in database.execute("SELECT id FROM thumbnails")} == expected.keys()
    content = b"".join(path.read_bytes() for path in (tmp_path / "data").glob(f"{DATABASE_FILE}*"))
    for name in ("i1", "i2", "i4", "i14"):
        assert b"picture of " + name.encode() + b"picture" not in content, "deleted bytes are overwritten"
    assert BY_ID["i5"][:40] in content
