"""Precomputed vectors: read whole, or mapped from a file as they train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from api_schemas.data_config import DataConfig
from common.errors import ConfigError, InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from tests.training.runs import EVERYTHING, MakeConfig, load_made
from training.data.load_data import load_data
from training.loop.train import train


def test_embeddings_are_read_with_their_metadata(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    items = EmbeddingSet.from_arrays(
        random.normal(size=(40, 5)), np.arange(40) % 10, metadata={"camera": np.arange(40) % 2}
    )
    save_embeddings(items, tmp_path / "e.npz")
    splits = load_made(tmp_path / "e.npz", kind="embeddings")
    assert splits.preprocessing.shape == (5,)
    assert splits.train.inputs.dtype == np.float32
    assert set(splits.train.metadata) == {"camera"}
    by_camera = load_made(
        tmp_path / "e.npz",
        kind="embeddings",
        group_column="camera",
        split={"by": "group", "train": 1, "validation": 1, "test": 0},
    )
    assert by_camera.validation is not None
    assert set(by_camera.train.metadata["camera"]) != set(by_camera.validation.metadata["camera"])


def test_a_parquet_of_embeddings_trains_as_an_archive_does(small: MakeConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 12
    vectors = (random.normal(size=(12, 6))[labels] + 0.1 * random.normal(size=(60, 6))).astype(np.float32)
    np.savez(tmp_path / "e.npz", embeddings=vectors, labels=labels)
    rows = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": rows, "label": labels}), tmp_path / "e.parquet")
    stored = []
    for name in ("e.npz", "e.parquet"):
        data = {"kind": "embeddings", "path": str(tmp_path / name)}
        run = train(
            small(data=data, model={"backbone": "linear", "embedding_dim": 4}), tmp_path / f"run {name}"
        )
        stored.append(run.load_embeddings("test"))
    assert stored[0] is not None
    assert stored[1] is not None
    np.testing.assert_array_equal(stored[0].vectors, stored[1].vectors)
    assert stored[0].labels.tolist() == stored[1].labels.tolist()


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """60 vectors of 10 classes, float16, with labels and a column beside them."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 10
    array = (random.normal(size=(10, 6))[labels] + 0.1 * random.normal(size=(60, 6))).astype(np.float16)
    np.save(tmp_path / "x.npy", array)
    rows = [f"{label},{row % 3}" for row, label in enumerate(labels)]
    (tmp_path / "x.labels.csv").write_text("\n".join(["label,camera", *rows]))
    return tmp_path / "x.npy"


def test_mapped_vectors_train_as_those_in_memory(vectors: Path, small: MakeConfig, tmp_path: Path) -> None:
    array = np.load(vectors)
    np.savez(tmp_path / "x.npz", embeddings=array, labels=np.arange(60) % 10)
    runs = [
        train(
            small(data={"kind": "embeddings", "path": str(path)}, model={"backbone": "mlp", "hidden": [8]}),
            tmp_path / path.suffix,
        )
        for path in (vectors, tmp_path / "x.npz")
    ]
    mapped, read = (run.load_embeddings("test") for run in runs)
    assert mapped is not None
    assert read is not None
    np.testing.assert_allclose(mapped.vectors, read.vectors, atol=1e-3)
    assert set(mapped.metadata) == {"camera"}


def test_mapped_vectors_stay_on_disk(vectors: Path) -> None:
    train_part = load_made(vectors, kind="embeddings").train
    assert not isinstance(train_part.inputs, np.ndarray)
    np.testing.assert_array_equal(
        train_part.inputs[[0, 3]], np.load(vectors)[train_part.ids[[0, 3]].astype(int)].astype(np.float32)
    )


def test_labels_beside_may_be_an_array_or_pairs_of_rows(vectors: Path) -> None:
    (vectors.parent / "x.labels.csv").unlink()
    np.save(vectors.parent / "x.labels.npy", np.arange(60) % 10)
    assert load_made(vectors, kind="embeddings", split=EVERYTHING).train.n_classes == 10
    (vectors.parent / "x.labels.npy").unlink()
    (vectors.parent / "x.labels.csv").write_text("a,b,same\n0,10,1\n20,10,1\n1,11,1\n0,1,0\n")
    items = load_made(vectors, kind="embeddings", split=EVERYTHING).train
    assert sorted(items.ids.tolist()) == ["0", "1", "10", "11", "20"]
    assert items.n_classes == 2


def build_ones_but_row(value: float) -> NDArray[np.float64]:
    """Ones [60, 2] but in row 41."""
    vectors = np.ones((60, 2))
    vectors[41] = value
    return vectors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.labels.csv", None, r"has no labels: expected x\.labels\.npy, \.csv or \.parquet beside it"),
        ("x.npy", "no array", r"x\.npy cannot be read as a \.npy array"),
        ("x.labels.csv", "label\n1\n2\n", r"x\.labels\.csv has 2 rows, .*x\.npy has 60"),
        ("x.labels.csv", "a,b,same\n0,60,1\n", r"'60' is no row of .*x\.npy, which has 60"),
        ("x.labels.npy", np.zeros((60, 2)), r"must hold one integer or text a row, found float64 \(60, 2\)"),
        ("x.npy", np.zeros((60, 2), np.float32), r"row 0 .* is a zero vector"),
        ("x.npy", np.full((60, 2), np.nan), r"row 0 .* holds NaN"),
        ("x.npy", build_ones_but_row(1e100), r"x\.npy: row 41 .* has the length inf in float32.*1 such rows"),
        (
            "x.npy",
            build_ones_but_row(1e20),
            r"x\.npy: row 41 .* has the length 1\.41e\+20 in float32.*: scale them",
        ),
        ("x.npy", build_ones_but_row(1e-20), r"x\.npy: row 41 .* has the length 1\.41e-20 in float32"),
        ("x.npy", build_ones_but_row(1e-60), r"x\.npy: row 41 .* has the length 0 in float32"),
        ("x.npy", np.array([["a"] * 60]), r"must be numbers, found <U1"),
        ("x.npy", np.ones(60), r"must hold numbers of shape \[n, d\], found shape \(60,\)"),
    ],
)
def test_mapped_files_that_cannot_be_used_are_named(
    vectors: Path, name: str, content: object, message: str
) -> None:
    path = vectors.parent / name
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, np.asarray(content))
    with pytest.raises(InputError, match=message):
        load_made(vectors, kind="embeddings")


def test_a_mapped_file_that_ends_too_early_or_whose_header_lies_is_named(vectors: Path) -> None:
    content = vectors.read_bytes()
    start, end = content.index(b"(60, "), content.index(b"}")
    for damaged, message in (
        (content[:-8], "it ends before row 59"),
        (content.replace(b"(60, ", b"(30, ", 1), "an array of shape"),
        (
            content[:start] + b" " * (end - start) + content[end:],
            "cannot be read as a .npy array: it is dama",
        ),
    ):
        vectors.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"x\.npy .*{message}"):
            load_made(vectors, kind="embeddings")


def test_vectors_come_from_one_file_and_of_one_length(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind 'embeddings' takes one file, found 2"):
        load_data(DataConfig(kind="embeddings", path=[str(vectors), str(vectors)]))
    np.savez(tmp_path / "other.npz", embeddings=np.eye(3), labels=np.arange(3))
    with pytest.raises(InputError, match=r"other\.npz has vectors of 3 numbers, \d+ are trained on"):
        load_made(vectors, kind="embeddings", test_path=str(tmp_path / "other.npz"))


@pytest.mark.parametrize("rows", [slice(None, None, -1), slice(0, 3)], ids=["reversed", "shorter"])
def test_a_mapped_file_that_changes_while_training_stops_the_run(
    vectors: Path, small: MakeConfig, tmp_path: Path, rows: slice
) -> None:
    def overwrite(steps: object, name: str, total: int | None = None) -> object:
        if name.startswith("epoch 2"):
            np.save(vectors, np.load(vectors)[rows])
        return steps

    config = small(data={"kind": "embeddings", "path": str(vectors)}, model={"backbone": "linear"})
    with pytest.raises(InputError, match=r"x\.npy changed while it was trained on; the last checkpoint is"):
        train(config, tmp_path / "run", track=overwrite)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"training data changed|has 60 rows, .* has 3"):
        train(config, tmp_path / "run", resume=True)
