"""Thumbnails read again from the files of a data set."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.data_config import DataConfig
from common.progress import silent
from training.data.load_data import load_data
from training.data.read_thumbnails import read_thumbnails


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten classes of three photos, one of which is cut off."""
    rng = np.random.default_rng(0)
    for label in "abcdefghij":
        (tmp_path / label).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 256, (60, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    cut = tmp_path / "a" / "0.png"
    cut.write_bytes(cut.read_bytes()[:200])
    return tmp_path


def test_pictures_come_from_the_files_not_from_what_the_network_sees(folder: Path) -> None:
    said: list[str] = []
    data = DataConfig(kind="images", path=str(folder), image_size=8, broken="skip")
    splits = load_data(data)
    ids = np.array(["b/2.png", "a/0.png", "nobody", "d/1.png"])
    made = list(read_thumbnails(data, splits.preprocessing, ids, 64, silent, said.append))
    assert [thumbnail is None for thumbnail in made] == [False, True, True, False]
    sizes = {Image.open(io.BytesIO(thumbnail)).size for thumbnail in made if thumbnail is not None}
    assert sizes == {(64, 32)}
    assert "2 of 4 items have no thumbnail" in said[-1]


def test_builtin_images_have_them(tmp_path: Path) -> None:
    data = DataConfig(kind="builtin", builtin="digits")
    splits = load_data(data)
    made = list(read_thumbnails(data, splits.preprocessing, splits.train.ids[:3], 96, silent))
    assert [Image.open(io.BytesIO(content or b"")).size for content in made] == [(8, 8)] * 3


def test_texts_are_their_beginning(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["id", "label", "text"])
        rows.writerows([f"t{n}", f"c{n % 10}", f"text {n} " + "long " * 200] for n in range(40))
    data = DataConfig(kind="text", path=str(file))
    splits = load_data(data)
    (made,) = read_thumbnails(data, splits.preprocessing, np.array(["t7"]), 96, silent)
    assert made is not None
    assert made.decode() == ("text 7 " + "long " * 200)[:500]


def test_items_of_a_separate_test_set_are_found_under_their_names(folder: Path) -> None:
    data = DataConfig(kind="images", path=str(folder), test_path=str(folder), broken="skip")
    splits = load_data(data)
    ids = np.array(["test/b/1.png", "b/1.png"])
    first, second = read_thumbnails(data, splits.preprocessing, ids, 64, silent)
    assert first is not None
    assert first == second
