"""``limen build`` from files of any size and kind, in bounded memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.manifest import IndexDescription, Manifest
from embeddings.files import open_embeddings
from index.bundle import read_bundle, read_manifest
from index.gallery.gallery import Gallery
from limen.pipeline.make_bundle import describe_bundle
from tests.conftest import ROOT
from tests.limen.conftest import Limen, make_classes

SMALL_SET = make_classes(60, 8)


def write_set(folder: Path, kind: str) -> list[object]:
    """Write the set as a kind of file; returns the arguments of ``limen build``."""
    vectors, labels = SMALL_SET.vectors.astype(np.float64) * 3, SMALL_SET.labels
    colour = np.where(np.arange(len(labels)) % 3 == 0, "red", "blue")
    file = folder / f"set{Path(kind).suffix}"
    table = {"label": labels, "id": SMALL_SET.ids, "colour": colour}
    if kind == "plain.npz":
        np.savez(file, embeddings=vectors, labels=labels, ids=SMALL_SET.ids, colour=colour)
    elif kind == "packed.npz":
        np.savez_compressed(file, embeddings=vectors, labels=labels, colour=colour)
    elif kind == "by_column.npz":
        np.savez(file, embeddings=np.asfortranarray(vectors), labels=labels, colour=colour)
    elif kind == "array.npy":
        np.save(file, vectors)
        pq.write_table(pa.table(table), folder / "labels.parquet")
        return [file, "--labels", folder / "labels.parquet"]
    elif kind == "fixed.parquet":
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        pq.write_table(pa.table({"embedding": flat, **table}), file, row_group_size=100)
    else:
        pq.write_table(pa.table({"embedding": vectors.tolist(), **table}), file, row_group_size=100)
    return [file]


@pytest.mark.parametrize(
    "kind", ["plain.npz", "packed.npz", "by_column.npz", "array.npy", "lists.parquet", "fixed.parquet"]
)
def test_every_kind_of_file_makes_the_same_bundle(
    limen: Limen, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embeddings.files.BLOCK_ROWS", 77)
    monkeypatch.setattr(
        "limen.pipeline.make_bundle.MAX_ALL_PAIRS", 100
    )  # files are read here, nothing is measured
    outcome = limen("build", *write_set(tmp_path, kind), "--out", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    assert "480 vectors of 32 numbers: flat, about" in outcome.err
    generation = read_bundle(tmp_path / "bundle").open_generation()
    np.testing.assert_allclose(generation.vectors, SMALL_SET.vectors, atol=1e-7)
    assert generation.items.ids.take(np.arange(480)) == SMALL_SET.ids.tolist()
    assert generation.items.metadata.column("colour").to_pylist()[:4] == ["red", "blue", "blue", "red"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("labels", ["set.parquet", "labels.jsonl"])
def test_lists_of_a_file_are_metadata_of_the_gallery(
    limen: Limen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    monkeypatch.setattr("limen.pipeline.make_bundle.MAX_ALL_PAIRS", 100)
    tags = [[["red", "old"], [], None][row % 3] for row in range(480)]
    table = {"label": SMALL_SET.labels.tolist(), "id": SMALL_SET.ids.tolist(), "tags": tags}
    if labels == "set.parquet":
        pq.write_table(pa.table({"embedding": SMALL_SET.vectors.tolist(), **table}), tmp_path / labels)
        given: list[object] = [tmp_path / labels]
    else:
        np.save(tmp_path / "set.npy", SMALL_SET.vectors)
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        (tmp_path / labels).write_text("\n".join(map(json.dumps, rows)))
        given = [tmp_path / "set.npy", "--labels", tmp_path / labels]
    outcome = limen("build", *given, "--out", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    with Gallery.open(tmp_path / "bundle") as gallery:
        hits = gallery.search(SMALL_SET.vectors[:1], 480, filter={"tags": {"$contains": "old"}})[0]
        assert {hit.id for hit in hits} == set(SMALL_SET.ids[::3].tolist())
        assert hits[0].metadata == {"tags": ["red", "old"]}


def test_labels_of_an_array_may_be_an_array(
    limen: Limen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limen.pipeline.make_bundle.MAX_ALL_PAIRS", 100)
    np.save(tmp_path / "set.npy", SMALL_SET.vectors)
    np.save(tmp_path / "labels.npy", SMALL_SET.labels)
    out = tmp_path / "bundle"
    assert limen("build", tmp_path / "set.npy", "--labels", tmp_path / "labels.npy", "--out", out).code == 0
    assert read_manifest(out).counts.classes == 60


@pytest.mark.parametrize(
    ("make", "flags", "says"),
    [
        (lambda f: np.save(f / "e.npy", SMALL_SET.vectors), [], "holds no labels: give them with --labels"),
        (lambda f: np.save(f / "e.npy", SMALL_SET.vectors), ["--labels", "none.npy"], "is not a file"),
        (lambda f: np.save(f / "e.npy", np.ones(3)), ["--labels", "l.npy"], r"found shape \(3,\)"),
        (lambda f: np.save(f / "e.npy", np.array([[None]])), ["--labels", "l.npy"], "Python objects"),
        (lambda f: np.save(f / "e.npy", np.ones((3, 2))), ["--labels", "l.npy"], "need 3 labels"),
        (lambda f: np.save(f / "e.npy", np.eye(4)[:, :3]), ["--labels", "l.npy"], "row 3 .* zero vector"),
        (lambda f: (f / "e.npy").write_bytes(b"nonsense"), ["--labels", "l.npy"], "damaged"),
        (lambda f: np.save(f / "e.npy", np.ones((0, 2))), ["--labels", "l.npy"], "no rows"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_used(
    limen: Limen, tmp_path: Path, make: object, flags: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("embeddings.files.BLOCK_ROWS", 2)
    make(tmp_path)  # type: ignore[operator]
    np.save(tmp_path / "l.npy", ["a", "b", "c", "d"])
    outcome = limen("build", "e.npy", *flags, "--out", "bundle")
    assert outcome.code == 2
    assert re.search(says, outcome.err), outcome.err
    assert not (tmp_path / "bundle").exists()


def test_a_file_that_ends_too_early_is_damaged(limen: Limen, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", SMALL_SET.vectors)
    np.save(tmp_path / "l.npy", SMALL_SET.labels)
    data = (tmp_path / "e.npy").read_bytes()
    (tmp_path / "e.npy").write_bytes(data[:-100])
    outcome = limen("build", tmp_path / "e.npy", "--labels", tmp_path / "l.npy", "--out", tmp_path / "b")
    assert (outcome.code, "ends before row 479" in outcome.err) == (2, True)


def test_what_does_not_fit_is_refused_before_a_row_is_read(
    limen: Limen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write_set(tmp_path, "plain.npz")
    monkeypatch.setattr("embeddings.files.normalise_rows", lambda *_, **__: pytest.fail("a row was read"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("limen.pipeline.make_bundle.shutil.disk_usage", lambda _: usage(0, 0, 150_000))
    outcome = limen("build", *given, "--out", tmp_path / "b", "--set", "index.kind=hnsw")
    assert outcome.code == 2
    assert "on disk and 0 MiB is free there" in outcome.err
    monkeypatch.setattr("limen.pipeline.make_bundle.measure_free_memory", lambda: 80_000)
    outcome = limen(
        "build", *given, "--out", tmp_path / "b", "--set", "index.kind=hnsw", "--set", "index.m=4"
    )
    assert outcome.code == 2
    assert "index.kind=flat (0 MiB) fits" in outcome.err


def test_of_many_rows_a_sample_is_measured_and_that_is_said(
    limen: Limen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limen.pipeline.make_bundle.MAX_ALL_PAIRS", 400)
    monkeypatch.setattr("evaluation.calibration.sets.sources.MOST_CLASSES", 50)
    given = write_set(tmp_path, "plain.npz")
    out = tmp_path / "bundle"
    assert limen("build", *given, "--out", out).code == 0
    said = "Measured on 400 of 480 items, of 50 classes drawn at random; --sample-items 480 compares all."
    assert read_manifest(out).operating_points.reasons[-1] == said
    report = json.loads((out / "report.json").read_text())
    assert (report["counts"]["items"], report["reasons"][-1]) == (400, said)
    assert Gallery.open(out).search(SMALL_SET.vectors[7], 1)[0][0].id == SMALL_SET.ids[7]
    monkeypatch.undo()

    assert limen("build", *given, "--out", out, "--sample-items", 410).code == 0
    bundle = read_bundle(out)
    assert bundle.manifest.counts.items == 480
    assert {point.fit.n_items for point in bundle.points.values()} == {408}
    assert "408 of 480 items, of 51 classes" in bundle.manifest.operating_points.reasons[-1]
    match = bundle.points[str(bundle.manifest.operating_points.match)]
    assert match.target.gallery is not None
    assert match.target.gallery.items == 480, "the gallery is all rows"
    assert not Gallery.open(out).match(SMALL_SET.vectors[7])[0].beyond_proof
    assert limen("build", *given, "--out", out, "--sample-items", 9).code == 2


# the peak of getrusage would begin with that of the process which started this one
BUILD = """
import os, sys
from pathlib import Path
from limen.pipeline.make_bundle import build_from_embeddings
from tests.service.processes import measure_peak

build_from_embeddings(
    Path(sys.argv[1]), Path(sys.argv[2]), model="m", sample_items=1_000, overrides=["index.kind=flat"]
)
print(measure_peak(os.getpid()))
"""


def measure_build(folder: Path, kind: str, n: int, dim: int) -> int:
    """The most bytes of a process that builds a bundle of n float64 rows and measures a thousand."""
    rows = np.random.default_rng(0).normal(size=(n, dim))
    file, out = folder / f"{n}.{kind}", folder / f"bundle-{n}"
    if kind == "npz":
        np.savez(file, embeddings=rows, labels=np.arange(n) // 10)
    else:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
        table = pa.table({"embedding": flat, "label": np.arange(n) // 10})
        pq.write_table(table, file, compression="none", row_group_size=20_000)
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # what others keep back varies
    command = [sys.executable, "-c", BUILD, str(file), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert read_manifest(out).counts.items == open_embeddings(file).rows == n
    return int(done.stdout.splitlines()[-1])


# MiB of ids, labels, the table of items and what Arrow holds; the file's own rows would be 147 MiB more
@pytest.mark.parametrize(("kind", "rest"), [("npz", 165), ("parquet", 240)])
def test_memory_is_bounded_by_the_index_not_by_the_file(tmp_path: Path, kind: str, rest: int) -> None:
    few, many, dim = 100_000, 400_000, 64
    grown = measure_build(tmp_path, kind, many, dim) - measure_build(tmp_path, kind, few, dim)
    index = rows = (many - few) * dim * 4
    assert grown < index + rows + rest * 2**20


def test_what_searches_find_is_said() -> None:
    golden = Path(__file__).parents[2] / "api_schemas" / "golden" / "2" / "manifest.json"
    manifest = Manifest.load(golden)

    def describe(**parameters: float) -> str:
        index = IndexDescription(kind="hnsw", parameters={"ef_search": 38, **parameters})
        return describe_bundle(manifest.model_copy(update={"index": index}), Path("out"))

    assert "Searches find 98.6% of the ten nearest (ef_search 38). Next: " in describe(
        recall=0.9861, target_recall=0.98
    )
    assert "(ef_search 38, less than asked for)" in describe(recall=0.9, target_recall=0.98)
    assert "nearest" not in describe(), "the beam was given"


@pytest.mark.parametrize("classes", [1, 12])
def test_one_item_of_each_class_makes_a_bundle_without_a_report(
    limen: Limen, tmp_path: Path, classes: int
) -> None:
    """One photo of each person is a gallery; two of one person are in none of it."""
    items = make_classes(classes, 1)
    np.savez(tmp_path / "one.npz", embeddings=items.vectors, labels=items.labels)
    built = limen("build", tmp_path / "one.npz", "--out", tmp_path / "bundle")
    assert built.code == 0
    assert "No report: it compares items of one class" in built.out + built.err
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.counts.items == classes
    assert any(reason.startswith("No report") for reason in manifest.operating_points.reasons)
    assert not (tmp_path / "bundle" / "report.json").exists()
