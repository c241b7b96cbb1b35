"""A bundle is whole and unchanged, or it is refused with the file's name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from api_schemas.manifest import Manifest
from common.atomic_files import hash_file
from common.errors import BundleError, InputError
from index import bundle as bundles
from index.bundle import read_bundle, verify_bundle
from index.engines.graph_file import Graph
from index.gallery.gallery import Gallery
from tests.index.conftest import (
    KINDS,
    MODEL,
    MakeBundle,
    make_items,
    make_small_config,
    make_unit_rows,
    point,
)

ITEMS = make_items(make_unit_rows(np.random.default_rng(1), 300), price=np.arange(300))


def test_every_file_is_in_the_manifest_with_its_checksum(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS, match=0.5, verify=0.4, cohort=ITEMS.subset(range(20)))
    manifest = Manifest.load(path / "manifest.json")
    on_disk = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert on_disk == {*manifest.files, "manifest.json"}
    for name, entry in manifest.files.items():
        assert (hash_file(path / name), (path / name).stat().st_size) == (entry.sha256, entry.size)
    assert manifest.counts.model_dump() == {
        "items": 300,
        "classes": 10,
        "distinct_vectors": 300,
        "side_list": 0,
        "cohort": 20,
    }
    assert verify_bundle(path) == manifest


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_anywhere_is_found(make_bundle: MakeBundle, kind: str) -> None:
    path = make_bundle(ITEMS, make_small_config(kind), match=0.5)
    for name in Manifest.load(path / "manifest.json").files:
        original = (path / name).read_bytes()
        changed = bytearray(original)
        changed[len(changed) // 2] ^= 1
        (path / name).write_bytes(changed)
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            Gallery.open(path)
        (path / name).write_bytes(original)
    assert Gallery.open(path).n_items == 300


def test_a_missing_or_shortened_file_is_named(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS)
    content = (path / "vectors.npy").read_bytes()
    (path / "vectors.npy").write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"vectors\.npy has .* bytes"):
        read_bundle(path)
    (path / "vectors.npy").unlink()
    with pytest.raises(BundleError, match=r"vectors\.npy is missing"):
        read_bundle(path)


def test_an_index_whose_checksum_differs_is_never_opened(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_bundle(ITEMS, make_small_config("hnsw"))
    changed = bytearray((path / "graph.npy").read_bytes())
    changed[100] ^= 0xFF
    (path / "graph.npy").write_bytes(changed)
    opened: list[Path] = []
    monkeypatch.setattr(Graph, "open", lambda name, *_: opened.append(name))
    with pytest.raises(BundleError, match=r"graph\.npy"):
        Gallery.open(path)
    assert opened == []


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "a/../../outside.txt", "a\\b", "."])
def test_names_that_lead_outside_are_refused(make_bundle: MakeBundle, name: str) -> None:
    path = make_bundle(ITEMS)
    (path.parent / "outside.txt").write_text("secret")
    document = json.loads((path / "manifest.json").read_text())
    document["files"][name] = {"sha256": "0" * 64, "size": 6}
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="plain relative path"):
        read_bundle(path)


def test_a_link_that_leads_outside_is_refused(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS)
    shutil.move(path / "config.yaml", path.parent / "config.yaml")
    (path / "config.yaml").symlink_to(path.parent / "config.yaml")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(path)


def test_the_schema_is_checked(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS)
    document = json.loads((path / "manifest.json").read_text())
    for key, value in (("schema_version", 3), ("embedding_dim", 0), ("colour", "red")):
        (path / "manifest.json").write_text(json.dumps({**document, key: value}))
        with pytest.raises(BundleError, match=key):
            read_bundle(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(path)


def test_an_engine_of_another_kind_is_refused(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS, make_small_config("ivf_pq"))
    document = json.loads((path / "manifest.json").read_text())
    document["index"] = {"kind": "flat", "parameters": {}, "reason": None}
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="holds a IndexIVFPQFastScan"):
        Gallery.open(path)


def test_a_folder_that_is_no_bundle_is_left_alone(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no bundle"):
        make_bundle(ITEMS)
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "years of work"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_an_older_bundle_is_replaced_whole(make_bundle: MakeBundle, tmp_path: Path) -> None:
    make_bundle(ITEMS, match=0.5)
    path = make_bundle(ITEMS.subset(range(50)))
    assert Gallery.open(path).n_items == 50
    assert not list(path.glob("operating_points/*"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("step", ["fsync_and_hash", "publish"])
def test_a_failure_on_the_way_leaves_the_old_bundle(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = make_bundle(ITEMS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles, step, full)
    with pytest.raises(OSError, match="No space"):
        make_bundle(ITEMS.subset(range(10)))
    assert Gallery.open(path).n_items == 300
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_points_of_another_model_are_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match="belongs to model cccc"):
        make_bundle(ITEMS, operating_points=[point("far", 0.5, model_hash="c" * 64)])
    path = make_bundle(ITEMS, match=0.5)
    document = json.loads((path / "manifest.json").read_text())
    document["model_hash"] = "d" * 64
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="the bundle to dddd"):
        Gallery.open(path)


def test_a_pair_threshold_never_decides_a_search(make_bundle: MakeBundle) -> None:
    pair = point("far", 0.5)
    with pytest.raises(BundleError, match="match is decided by fpir"):
        make_bundle(ITEMS, operating_points=[pair], active={"match": pair.id, "verify": None})
    with pytest.raises(BundleError, match="not in the bundle"):
        make_bundle(ITEMS, active={"match": "nobody", "verify": None})


def test_the_full_audit_finds_a_stranded_row(make_bundle: MakeBundle) -> None:
    path = make_bundle(ITEMS, make_small_config("hnsw"))
    graph, _ = Graph.open(path / "graph.npy")
    links = graph.links.copy()
    links[links == 17] = -1
    replace(graph, links=links).save(path / "other.npy")
    (path / "other.npy").replace(path / "graph.npy")
    document = json.loads((path / "manifest.json").read_text())
    entry = {
        "sha256": hash_file(path / "graph.npy"),
        "size": (path / "graph.npy").stat().st_size,
    }
    document["files"]["graph.npy"] = entry
    (path / "manifest.json").write_text(json.dumps(document))
    read_bundle(path)
    with pytest.raises(BundleError, match="do not find themselves"):
        verify_bundle(path)


def test_the_encoder_travels_with_the_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = tmp_path / "encoder"
    source.mkdir()
    with pytest.raises(InputError, match=r"has no encoder\.onnx"):
        make_bundle(ITEMS, encoder_folder=source)
    (source / "encoder.onnx").write_bytes(b"network")
    (source / "preprocessing.json").write_text("{}")
    path = make_bundle(ITEMS, encoder_folder=source)
    manifest = read_bundle(path).manifest
    assert manifest.encoder is not None
    assert (path / manifest.encoder.network).read_bytes() == b"network"
    assert manifest.model_hash == MODEL
