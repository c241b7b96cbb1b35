"""Pairs and triplets become classes; vectors in a mapped file train as those in memory do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from api_schemas.config import Config, DataConfig
from common.errors import ConfigError, InputError
from training.data.load_data import load_data
from training.data.pair_labels import group_pairs, holds_pairs
from training.loop.train import train

MakeConfig = Callable[..., Config]
EVERYTHING = {"train": 1, "validation": 0, "test": 0}


def table(names: str, *rows: tuple[object, ...]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(dict(zip(names.split(), columns, strict=True)))


def naive_classes(n: int, same: list[tuple[int, int]]) -> list[int]:
    """The twin of the connected components: merge until nothing moves."""
    group = list(range(n))
    for _ in range(n):
        for a, b in same:
            group[a] = group[b] = min(group[a], group[b])
    return group


def test_what_positive_pairs_connect_is_one_class() -> None:
    found = table("a b same", ("x", "y", 1), ("z", "w", 1), ("y", "z", 0), ("v", "x", 1), ("u", "v", 0))
    names, labels = group_pairs(found, Path("p.csv"))
    assert names.tolist() == ["x", "y", "z", "w", "v", "u"], "in the order they come"
    of = dict(zip(names.tolist(), labels.tolist(), strict=True))
    assert of["x"] == of["y"] == of["v"]
    assert of["z"] == of["w"]
    assert len({of["x"], of["z"], of["u"]}) == 3


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_those_of_merging_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, 30, (20, 2))
    found = table("a b same", *[(int(a), int(b), True) for a, b in pairs])
    names, labels = group_pairs(found, Path("p.csv"))
    naive = naive_classes(30, [(int(a), int(b)) for a, b in pairs])
    for first in range(len(names)):
        for second in range(len(names)):
            together = naive[int(names[first])] == naive[int(names[second])]
            assert (labels[first] == labels[second]) == together


def test_triplets_say_the_same_as_their_pairs() -> None:
    triplets = table("anchor positive negative", ("x", "y", "z"), ("z", "w", "y"))
    pairs = table("a b same", ("x", "y", 1), ("z", "w", 1), ("x", "z", 0), ("z", "y", 0))
    of_triplets, of_pairs = (
        dict(zip(*map(np.ndarray.tolist, group_pairs(one, Path("p.csv"))), strict=True))
        for one in (triplets, pairs)
    )
    assert of_triplets.keys() == of_pairs.keys()
    for found in (of_triplets, of_pairs):
        assert found["x"] == found["y"]
        assert found["z"] == found["w"]
        assert found["x"] != found["w"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (table("a b same", ("x", "y", 1), ("y", "z", 1), ("z", "x", 0)), r"row 2 says that 'z' and 'x' dif"),
        (table("anchor positive negative", ("x", "y", "z"), ("z", "y", "w")), "row 0 says that 'x' and 'z'"),
        (table("a b same", ("x", "y", 1), ("y", "z", 2)), "row 1 of column 'same' is '2', expected 0 or 1"),
        (table("a b same", ("x", "y", 1), ("y", None, 0)), "row 1 of column 'b' has no value"),
    ],
)
def test_pairs_that_cannot_be_used_are_named(found: pa.Table, said: str) -> None:
    with pytest.raises(InputError, match=said):
        group_pairs(found, Path("p.csv"))


def test_labels_win_over_pairs() -> None:
    assert not holds_pairs(table("a b same label", (1, 2, 1, 3)), "label")
    assert not holds_pairs(table("a b", (1, 2)), "label")


def test_pairs_of_images_and_texts_are_read(drawings: Path, tmp_path: Path) -> None:
    letters = sorted({path.parent for path in drawings.rglob("*.png")})
    lines = [f"{a / '0.png'},{a / f'{n}.png'},1" for a in letters for n in range(1, 6)]
    lines += [f"{a / '0.png'},{b / '0.png'},0" for a, b in pairwise(letters)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,same", *lines]))
    splits = load_data(DataConfig(path=str(tmp_path / "pairs.csv")))
    assert [items.n_classes for items in splits.parts().values()] == [9, 3, 3]
    assert sum(len(items) for items in splits.parts().values()) == 90
    (tmp_path / "texts.csv").write_text("anchor,positive,negative\nhello,hi,bye\nbye,so long,hello\n")
    texts = load_data(DataConfig(kind="text", path=str(tmp_path / "texts.csv"), split=EVERYTHING))
    assert len(texts.train) == 4
    assert texts.train.n_classes == 2
    (tmp_path / "texts.csv").write_text("anchor,positive,negative\nhello,  ,bye\n")
    with pytest.raises(InputError, match="row 0 of column 'positive' is empty"):
        load_data(DataConfig(kind="text", path=str(tmp_path / "texts.csv")))


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


def settings(path: Path, **others: object) -> DataConfig:
    return DataConfig.model_validate({"kind": "embeddings", "path": str(path), **others})


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
    mapped, read = (run.embeddings("test") for run in runs)
    assert mapped is not None
    assert read is not None
    np.testing.assert_allclose(mapped.vectors, read.vectors, atol=1e-3)
    assert set(mapped.metadata) == {"camera"}


def test_mapped_vectors_stay_on_disk(vectors: Path) -> None:
    train_part = load_data(settings(vectors)).train
    assert not isinstance(train_part.inputs, np.ndarray)
    np.testing.assert_array_equal(
        train_part.inputs[[0, 3]], np.load(vectors)[train_part.ids[[0, 3]].astype(int)].astype(np.float32)
    )


def test_labels_beside_may_be_an_array_or_pairs_of_rows(vectors: Path) -> None:
    (vectors.parent / "x.labels.csv").unlink()
    np.save(vectors.parent / "x.labels.npy", np.arange(60) % 10)
    assert load_data(settings(vectors, split=EVERYTHING)).train.n_classes == 10
    (vectors.parent / "x.labels.npy").unlink()
    (vectors.parent / "x.labels.csv").write_text("a,b,same\n0,10,1\n20,10,1\n1,11,1\n0,1,0\n")
    items = load_data(settings(vectors, split=EVERYTHING)).train
    assert sorted(items.ids.tolist()) == ["0", "1", "10", "11", "20"]
    assert items.n_classes == 2


def one_row(value: float) -> NDArray[np.float64]:
    """Ones [60, 2] but in row 41."""
    vectors = np.ones((60, 2))
    vectors[41] = value
    return vectors


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.labels.csv", None, r"has no labels: expected x\.labels\.npy, \.csv or \.parquet beside it"),
        ("x.npy", "no array", r"x\.npy cannot be read as a \.npy array"),
        ("x.labels.csv", "label\n1\n2\n", r"x\.labels\.csv has 2 rows, .*x\.npy has 60"),
        ("x.labels.csv", "a,b,same\n0,60,1\n", r"'60' is no row of .*x\.npy, which has 60"),
        ("x.labels.npy", np.zeros((60, 2)), r"must hold one integer or text a row, found float64 \(60, 2\)"),
        ("x.npy", np.zeros((60, 2), np.float32), r"row 0 .* is a zero vector"),
        ("x.npy", np.full((60, 2), np.nan), r"row 0 .* holds NaN"),
        ("x.npy", one_row(1e100), r"x\.npy: row 41 .* has the length inf in float32.*1 such rows"),
        ("x.npy", one_row(1e20), r"x\.npy: row 41 .* has the length 1\.41e\+20 in float32.*: scale them"),
        ("x.npy", one_row(1e-20), r"x\.npy: row 41 .* has the length 1\.41e-20 in float32"),
        ("x.npy", one_row(1e-60), r"x\.npy: row 41 .* has the length 0 in float32"),
        ("x.npy", np.array([["a"] * 60]), r"must be numbers, found <U1"),
        ("x.npy", np.ones(60), r"must hold numbers of shape \[n, d\], found shape \(60,\)"),
    ],
)
def test_mapped_files_that_cannot_be_used_are_named(
    vectors: Path, name: str, content: object, said: str
) -> None:
    path = vectors.parent / name
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, np.asarray(content))
    with pytest.raises(InputError, match=said):
        load_data(settings(vectors))


def test_a_mapped_file_that_ends_too_early_or_whose_header_lies_is_named(vectors: Path) -> None:
    content = vectors.read_bytes()
    start, end = content.index(b"(60, "), content.index(b"}")
    for damaged, said in (
        (content[:-8], "it ends before row 59"),
        (content.replace(b"(60, ", b"(30, ", 1), "an array of shape"),
        (
            content[:start] + b" " * (end - start) + content[end:],
            "cannot be read as a .npy array: it is dama",
        ),
    ):
        vectors.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"x\.npy .*{said}"):
            load_data(settings(vectors))


def test_vectors_come_from_one_file_and_of_one_length(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind 'embeddings' takes one file, found 2"):
        load_data(DataConfig(kind="embeddings", path=[str(vectors), str(vectors)]))
    np.savez(tmp_path / "other.npz", embeddings=np.eye(3), labels=np.arange(3))
    with pytest.raises(InputError, match=r"other\.npz has vectors of 3 numbers, \d+ are trained on"):
        load_data(settings(vectors, test_path=str(tmp_path / "other.npz")))


@pytest.mark.parametrize("other", [slice(None, None, -1), slice(0, 3)], ids=["turned round", "shorter"])
def test_a_mapped_file_that_changes_while_training_stops_the_run(
    vectors: Path, small: MakeConfig, tmp_path: Path, other: slice
) -> None:
    def overwrite(steps: object, name: str, total: int | None = None) -> object:
        if name.startswith("epoch 2"):
            np.save(vectors, np.load(vectors)[other])
        return steps

    config = small(data={"kind": "embeddings", "path": str(vectors)}, model={"backbone": "linear"})
    with pytest.raises(InputError, match=r"x\.npy changed while it was trained on; the last checkpoint is"):
        train(config, tmp_path / "run", track=overwrite)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"training data changed|has 60 rows, .* has 3"):
        train(config, tmp_path / "run", resume=True)
