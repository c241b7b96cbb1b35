"""Classes from pairs and triplets."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import EVERYTHING
from training.data.load_data import load_data
from training.data.pair_labels import group_pairs, holds_pairs


def build_table(names: str, *rows: tuple[object, ...]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(dict(zip(names.split(), columns, strict=True)))


def compute_naive_classes(n: int, same: list[tuple[int, int]]) -> list[int]:
    """The twin of the connected components: merge until nothing moves."""
    group = list(range(n))
    for _ in range(n):
        for a, b in same:
            group[a] = group[b] = min(group[a], group[b])
    return group


def test_what_positive_pairs_connect_is_one_class() -> None:
    pairs_table = build_table(
        "a b same", ("x", "y", 1), ("z", "w", 1), ("y", "z", 0), ("v", "x", 1), ("u", "v", 0)
    )
    names, labels = group_pairs(pairs_table, Path("p.csv"))
    assert names.tolist() == ["x", "y", "z", "w", "v", "u"], "in the order they come"
    of = dict(zip(names.tolist(), labels.tolist(), strict=True))
    assert of["x"] == of["y"] == of["v"]
    assert of["z"] == of["w"]
    assert len({of["x"], of["z"], of["u"]}) == 3


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_those_of_merging_by_hand(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, 30, (20, 2))
    pairs_table = build_table("a b same", *[(int(a), int(b), True) for a, b in pairs])
    names, labels = group_pairs(pairs_table, Path("p.csv"))
    naive = compute_naive_classes(30, [(int(a), int(b)) for a, b in pairs])
    for first in range(len(names)):
        for second in range(len(names)):
            together = naive[int(names[first])] == naive[int(names[second])]
            assert (labels[first] == labels[second]) == together


def test_triplets_say_the_same_as_their_pairs() -> None:
    triplets = build_table("anchor positive negative", ("x", "y", "z"), ("z", "w", "y"))
    pairs = build_table("a b same", ("x", "y", 1), ("z", "w", 1), ("x", "z", 0), ("z", "y", 0))
    of_triplets, of_pairs = (
        dict(zip(*map(np.ndarray.tolist, group_pairs(source, Path("p.csv"))), strict=True))
        for source in (triplets, pairs)
    )
    assert of_triplets.keys() == of_pairs.keys()
    for classes in (of_triplets, of_pairs):
        assert classes["x"] == classes["y"]
        assert classes["z"] == classes["w"]
        assert classes["x"] != classes["w"]


@pytest.mark.parametrize(
    ("pairs_table", "message"),
    [
        (
            build_table("a b same", ("x", "y", 1), ("y", "z", 1), ("z", "x", 0)),
            r"row 2 says that 'z' and 'x' dif",
        ),
        (
            build_table("anchor positive negative", ("x", "y", "z"), ("z", "y", "w")),
            "row 0 says that 'x' and 'z'",
        ),
        (
            build_table("a b same", ("x", "y", 1), ("y", "z", 2)),
            "row 1 of column 'same' is '2', expected 0 or 1",
        ),
        (build_table("a b same", ("x", "y", 1), ("y", None, 0)), "row 1 of column 'b' has no value"),
    ],
)
def test_pairs_that_cannot_be_used_are_named(pairs_table: pa.Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        group_pairs(pairs_table, Path("p.csv"))


def test_labels_win_over_pairs() -> None:
    assert not holds_pairs(build_table("a b same label", (1, 2, 1, 3)), "label")
    assert not holds_pairs(build_table("a b", (1, 2)), "label")


def test_pairs_of_images_and_texts_are_read(drawings: Path, tmp_path: Path) -> None:
    letters = sorted({path.parent for path in drawings.rglob("*.png")})
    lines = [f"{a / '0.png'},{a / f'{n}.png'},1" for a in letters for n in range(1, 6)]
    lines += [f"{a / '0.png'},{b / '0.png'},0" for a, b in pairwise(letters)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,same", *lines]))
    splits = load_data(DataConfig(path=str(tmp_path / "pairs.csv")))
    assert [items.n_classes for items in splits.get_parts().values()] == [9, 3, 3]
    assert sum(len(items) for items in splits.get_parts().values()) == 90
    (tmp_path / "texts.csv").write_text("anchor,positive,negative\nhello,hi,bye\nbye,so long,hello\n")
    texts = load_data(DataConfig(kind="text", path=str(tmp_path / "texts.csv"), split=EVERYTHING))
    assert len(texts.train) == 4
    assert texts.train.n_classes == 2
    (tmp_path / "texts.csv").write_text("anchor,positive,negative\nhello,  ,bye\n")
    with pytest.raises(InputError, match="row 0 of column 'positive' is empty"):
        load_data(DataConfig(kind="text", path=str(tmp_path / "texts.csv")))


def test_a_text_that_many_pairs_name_is_held_once() -> None:
    long = [letter * 2_000 for letter in "abcdefgh"]
    rows = 20_000
    table = pa.table({"a": long * (rows // 8), "b": long[::-1] * (rows // 8), "same": [1] * rows})
    tracemalloc.start()
    names, labels = group_pairs(table, Path("p.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(names) == 8
    assert len(set(labels.tolist())) == 4
    assert peak < 2_000 * rows / 2, "80 MB where each pair's texts are held"
