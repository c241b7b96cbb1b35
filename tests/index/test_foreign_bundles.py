"""Bundles whose manifest agrees with their files, and whose files are not what they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.operating_point import OperatingPoint
from common.atomic_files import hash_file
from common.errors import BundleError
from index.bundle import verify_bundle
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.verified_files import HashCache
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows, point

ITEMS = make_items(make_unit_rows(np.random.default_rng(1), 60), price=np.arange(60))


def forge(path: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change a file, and let the manifest agree with it."""
    change(path / name)
    document = json.loads((path / "manifest.json").read_text())
    document["files"][name] = {"sha256": hash_file(path / name), "size": (path / name).stat().st_size}
    (path / "manifest.json").write_text(json.dumps(document))


def set_row(row: int, value: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        vectors = np.load(file)
        vectors[row] = value
        np.save(file, vectors)

    return change


def set_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    def rewrite(file: Path) -> None:
        table = pq.read_table(file)
        kind = pa.large_string() if name == "label" else table.column(name).type
        values = pa.array(change(table.column(name).to_pylist()), type=kind)
        pq.write_table(table.set_column(table.column_names.index(name), name, values), file)

    return rewrite


def check_refused(path: Path, tmp_path: Path, says: str) -> None:
    """``verify``, a read-only gallery and a data folder that begins with it all refuse it."""
    with pytest.raises(BundleError, match=says):
        verify_bundle(path)
    with pytest.raises(BundleError, match=says):
        Gallery.open(path)
    with pytest.raises(BundleError, match=says):
        LiveGallery.open(path, tmp_path / "data", NEVER)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_rows_that_are_no_unit_vectors_are_refused(
    make_bundle: MakeBundle, tmp_path: Path, kind: str, value: float
) -> None:
    path = make_bundle(ITEMS, make_small_config(kind))
    forge(path, "vectors.npy", set_row(41, value))
    check_refused(path, tmp_path, "row 41, item 'i41'")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("id", lambda ids: [*ids[:7], None, *ids[8:]], "row 7 has no id"),
        ("id", lambda ids: [*ids[:7], "i3", *ids[8:]], "the id 'i3' occurs twice"),
        ("id", lambda ids: [*ids[:7], "", *ids[8:]], "an id is empty"),
        ("label", lambda labels: [None, *labels[1:]], "row 0 has no label"),
        ("_rank", lambda ranks: [None, *ranks[1:]], "row 0 has no rank"),
        ("_node", lambda nodes: [*nodes[:-1], None], "row 59 has no node"),
    ],
)
def test_items_without_or_with_the_same_id_are_refused(
    make_bundle: MakeBundle, tmp_path: Path, name: str, change: Callable[[list[Any]], list[Any]], says: str
) -> None:
    path = make_bundle(ITEMS)
    forge(path, "items.parquet", set_column(name, change))
    check_refused(path, tmp_path, says)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("label", lambda labels: [labels[1], labels[0], *labels[2:]]),
        ("_rank", lambda ranks: [ranks[1], ranks[0], *ranks[2:]]),
    ],
)
def test_labels_and_ranks_are_recomputed(
    make_bundle: MakeBundle, name: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    path = make_bundle(ITEMS)
    verify_bundle(path)
    forge(path, "items.parquet", set_column(name, change))
    with pytest.raises(BundleError, match="data_hash" if name == "label" else "_rank is not the order"):
        verify_bundle(path)


def test_vectors_are_those_of_the_data_hash(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS)

    def swap(file: Path) -> None:
        vectors = np.load(file)
        vectors[[0, 1]] = vectors[[1, 0]]
        np.save(file, vectors)

    forge(path, "vectors.npy", swap)
    with pytest.raises(BundleError, match="data_hash is not that of the rows and labels"):
        verify_bundle(path)


def test_an_encoder_is_that_of_the_model_hash(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = tmp_path / "encoder"
    source.mkdir()
    (source / "encoder.onnx").write_bytes(b"network")
    (source / "preprocessing.json").write_text("{}")
    path = make_bundle(ITEMS, encoder_folder=source)
    with pytest.raises(BundleError, match="model_hash is not that of the encoder"):
        verify_bundle(path)


@pytest.mark.parametrize("point_id", ["../../outside", "a/b", "", ".hidden", "x" * 200, "a\0b", "é"])
def test_ids_of_points_are_names_of_files(point_id: str) -> None:
    document = point("far", 0.5).model_dump(mode="json") | {"schema_version": 1, "id": point_id}
    with pytest.raises(ValueError, match="id"):
        OperatingPoint.model_validate(document)


def test_bytes_that_change_under_the_same_size_and_time_are_noticed(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    path = make_bundle(ITEMS)
    LiveGallery.open(path, tmp_path / "data", NEVER).close()
    file = path / "vectors.npy"
    state = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"\x01\x02\x03\x04")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert not HashCache(tmp_path / "data" / "checked.json").knows(file)
    with pytest.raises(BundleError, match=r"vectors\.npy is not the file"):
        LiveGallery.open(path, tmp_path / "data", NEVER)


@pytest.mark.parametrize("content", ["[]", '{"x": 3}', "null", "{", '{"%s": ["a"]}'])
def test_remembered_hashes_of_another_form_are_forgotten(
    make_bundle: MakeBundle, tmp_path: Path, content: str
) -> None:
    path = make_bundle(ITEMS)
    LiveGallery.open(path, tmp_path / "data", NEVER).close()
    (tmp_path / "data" / "checked.json").write_text(content.replace("%s", str(path / "vectors.npy")))
    with LiveGallery.open(path, tmp_path / "data", NEVER) as live:
        assert live.gallery.n_items == 60


def test_what_an_earlier_version_built_in_is_served(make_bundle: MakeBundle, tmp_path: Path) -> None:
    path = make_bundle(make_items(ITEMS.vectors, price=np.linspace(0, 1, 60)))
    forge(path, "items.parquet", set_column("price", lambda prices: [float("inf"), *prices[1:]]))
    with LiveGallery.open(path, tmp_path / "data", NEVER) as live:
        first = live.gallery.get("i0")
        assert first is not None
        assert dict(first.metadata) == {}
        assert len(live.gallery.search(ITEMS.vectors[0], 60, filter={"price": {"$exists": True}})[0]) == 59
