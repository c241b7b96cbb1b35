"""What an earlier version wrote is read by this one; see ``golden.py`` for how the files came to be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from index.bundle import read_bundle, verify_bundle
from index.gallery.backup import restore_backup
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from tests.index.golden import COLOURS, LABELS, VECTORS

FORMATS = sorted(path for path in Path(__file__).with_name("golden").iterdir() if path.is_dir())


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one format's files."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def test_a_bundle_of_an_earlier_version_opens_and_decides_as_it_did(golden: Path) -> None:
    verify_bundle(golden / "bundle")
    gallery = Gallery.open(golden / "bundle")
    assert gallery.manifest.name == "golden"
    hits = gallery.search(VECTORS, 5)
    assert [row[0].similarity for row in hits] == [1.0] * 5
    assert [hit.id for hit in hits[2][:2]] == ["i2", "i3"]
    assert [row[0].label for row in hits] == LABELS
    assert [row[0].metadata.get("colour") for row in hits] == [*COLOURS[:3], "green", "blue"]
    assert [hit.id for hit in gallery.search(VECTORS[0], 5, filter={"label": 7, "sold": False})[0]] == ["i2"]
    known, unknown = gallery.match(np.stack([VECTORS[1], np.ones(4, dtype=np.float32)]))
    assert (known.decision, known.id) == ("match", "i1")
    assert unknown.decision == "unknown"
    assert gallery.verify(VECTORS[0], VECTORS[1])[0].similarity == np.float32(0.8)


def test_a_backup_of_an_earlier_version_is_restored_and_written_to(golden: Path) -> None:
    restore_backup(golden / "backup", golden / "data")
    read_bundle(golden / "bundle")
    with LiveGallery.open(golden / "bundle", golden / "data") as live:
        assert [item.id for item in live.gallery.page()] == ["i1", "i2", "i3", "i4", "new"]
        assert live.gallery.view.get_vector("i0") is None
        assert [hit.id for hit in live.gallery.search(VECTORS[0], 1)[0]] == ["i4"]
        assert dict(live.gallery.get("new").metadata) == {"size": 9}  # type: ignore[union-attr]
        uses = {name: use.items for name, use in live._store._fields.items()}
        assert uses == {"colour": 3, "size": 4, "sold": 3}, "counted by the step to this version"
        live.rebuild()
        assert [hit.id for hit in live.gallery.search(VECTORS[1], 2)[0]] == ["i1", "new"]
