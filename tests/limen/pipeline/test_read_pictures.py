"""``limen build --pictures``: thumbnails beside vectors that somebody else made."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from index.gallery.gallery import Gallery
from tests.limen.conftest import Limen, make_classes

ITEMS = make_classes(20, 4)


def write(folder: Path) -> list[str]:
    """Eighty vectors with pictures under the column ``path``, of which some cannot be read."""
    pictures = folder / "pictures"
    (pictures / "a b").mkdir(parents=True)
    paths = [f"a b/{row}.png" for row in range(len(ITEMS))]
    for row, name in enumerate(paths):
        grey = np.full((150, 100), row, dtype=np.uint8)
        Image.fromarray(grey).save(pictures / name)
    (pictures / paths[1]).write_bytes(b"no picture")
    (pictures / paths[2]).unlink()
    Image.new("L", (9, 9)).save(folder / "outside.png")
    paths[3], paths[4] = "../outside.png", str(folder / "outside.png")
    np.savez(folder / "set.npz", embeddings=ITEMS.vectors, labels=ITEMS.labels, path=np.array(paths))
    return ["build", str(folder / "set.npz"), "--out", str(folder / "bundle")]


def test_pictures_are_taken_from_their_folder_and_never_from_outside(limen: Limen, tmp_path: Path) -> None:
    done = limen(*write(tmp_path), "--pictures", tmp_path / "pictures", "--thumbnails", 48)
    assert done.code == 0, done.err
    assert "4 of 80 items have no picture" in done.err
    ids = [str(row) for row in range(80)]
    with Gallery.open(tmp_path / "bundle") as gallery:
        thumbnails = gallery.read_thumbnails(ids)
    assert sorted(set(ids) - thumbnails.keys()) == ["1", "2", "3", "4"]
    image = Image.open(io.BytesIO(thumbnails["70"]))
    assert image.size == (32, 48)
    assert abs(int(np.asarray(image.convert("L")).mean()) - 70) <= 2


def test_what_is_missing_is_said(limen: Limen, tmp_path: Path) -> None:
    arguments = write(tmp_path)
    alone = limen(*arguments, "--thumbnails", 48)
    assert (alone.code, "add --pictures FOLDER" in alone.err) == (2, True)
    absent = limen(*arguments, "--pictures", tmp_path / "nowhere")
    assert (absent.code, "is not a folder" in absent.err) == (2, True)
