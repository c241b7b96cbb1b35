"""Metadata columns of lists: read from every kind of file and object, joined, written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import limen
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, concatenate
from embeddings.files import read_embeddings, save_embeddings
from embeddings.list_columns import build_lists, split_lists
from embeddings.tables import read_metadata_columns, read_table

TAGS = [["red", "old"], [], None, ["red"]]
MARKS = [[1, 2], [3, 4], None, [1, 9]]


def make_set(**metadata: Any) -> EmbeddingSet:
    n = len(next(iter(metadata.values())))
    return EmbeddingSet.from_arrays(np.eye(n, 4) + 1, ["a"] * n, metadata=metadata)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(TAGS, pa.list_(pa.string())), TAGS),
        (pa.array(TAGS, pa.large_list(pa.large_string())), TAGS),
        (pa.array(TAGS, pa.list_(pa.dictionary(pa.int8(), pa.string()))), TAGS),
        (pa.chunked_array([pa.array(TAGS[:1]), pa.array(TAGS[1:], pa.list_(pa.string()))]), TAGS),
        (pa.array(MARKS, pa.list_(pa.uint8(), 2)), MARKS),
        (pa.array(MARKS, pa.list_(pa.float32())), MARKS),
        (pa.array([TAGS[3], *TAGS], pa.list_(pa.string())).slice(1), TAGS),
        (pd.Series(TAGS), TAGS),
        (pl.Series(TAGS), TAGS),
        (np.array([*TAGS, None], dtype=object)[:4], TAGS),
        ([("red", "old"), np.array([], dtype=str), None, ["red"]], TAGS),
        ([[2**60, 5], None, [], [np.int64(2)]], [[2**60, 5], None, [], [2]]),
        ([[], None, []], [[], None, []]),
    ],
)
def test_lists_of_any_make_are_kept(column: Any, expected: list[Any]) -> None:
    items = make_set(m=column)
    assert items.metadata["m"].tolist() == expected
    assert np.ma.getmaskarray(items.metadata["m"]).tolist() == [value is None for value in expected]
    turned = items.subset(np.arange(len(expected))[::-1])
    assert turned.metadata["m"].tolist() == expected[::-1]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([["a"], "b"], "column 'm' holds lists, but 'b' in row 1"),
        ([["a"], [["b"]]], r"one list of values a row, found \[\['b'\]\] in row 1"),
        ([["a"], [1]], "must be all text, all numbers"),
        ([["a"], ["b", None]], "a missing value in the list of row 1"),
        ([[1.0], [2.0, float("nan")]], "a missing value in the list of row 1"),
        ([[1.0], [2.0, float("inf")]], "infinity in the list of row 1"),
        ([[1], [2**63]], r"a whole number beyond 2\^63 in the list of row 1"),
        ([[True], [False]], "lists of text or of numbers, found large_list<item: bool>"),
        (pa.array([[[1]], None]), "lists of text or of numbers, found list"),
    ],
)
def test_other_lists_are_refused_in_a_sentence(column: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_set(m=column)


def test_lists_of_tables_are_metadata_if_they_are_short_and_whole(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "tags": TAGS,
        "marks": MARKS,
        "long": [[0.5] * 65, None, [], []],
        "holes": [["a", None], [], [], []],
        "nested": [[["a"]], [], [], []],
        "objects": [{"a": 1}, None, None, None],
    }
    rows = [{name: values[row] for name, values in columns.items()} for row in range(4)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(
        pa.table({name: pa.array(column) for name, column in columns.items()}), tmp_path / "t.parquet"
    )
    for path in (tmp_path / "t.jsonl", tmp_path / "t.parquet"):
        said: list[str] = []
        metadata = read_metadata_columns(read_table(path), (), path, said.append)
        assert {name: column.tolist() for name, column in metadata.items()} == {"tags": TAGS, "marks": MARKS}
        for name, reason in (
            ("long", "a list of 65 values in row 0, where 64 may be"),
            ("holes", "a missing value in the list of row 0"),
            ("nested", "no metadata"),
            ("objects", "no metadata"),
        ):
            assert any(f"column '{name}' holds" in line and reason in line for line in said), (path, name)
            assert sum(f"'{name}'" in line for line in said) == 1


def test_a_csv_has_no_lists(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('tags\n"[""a"", ""b""]"\n')
    metadata = read_metadata_columns(read_table(tmp_path / "t.csv"), (), tmp_path / "t.csv")
    assert metadata["tags"].tolist() == ['["a", "b"]'], "text as it is written"


def test_lists_of_several_sets_are_joined() -> None:
    sets = [
        make_set(m=[[1], None], t=[["x"], []], e=[[], []]),
        make_set(m=[[0.5], []], t=[[1], []], e=[[2], None]),
    ]
    sets.append(make_set(other=[1]))
    ids = iter("abcde")
    sets = [EmbeddingSet(s.vectors, s.labels, np.array([next(ids) for _ in s.ids]), s.metadata) for s in sets]
    joined = concatenate(sets).metadata
    assert joined["m"].tolist() == [[1.0], None, [0.5], [], None]
    assert joined["t"].tolist() == [["x"], [], ["1"], [], None]
    assert joined["e"].tolist() == [[], [], [2], None, None]
    with pytest.raises(InputError, match="lists in one set and single values in another"):
        concatenate([sets[0], EmbeddingSet(sets[2].vectors, sets[2].labels, np.array(["z"]), {"m": [1]})])


@given(
    column=st.one_of(
        st.lists(st.none() | st.lists(st.text(alphabet="aé,\n", max_size=3), max_size=4), min_size=1),
        st.lists(st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), min_size=1),
        st.lists(st.none() | st.lists(st.floats(-1e9, 1e9), max_size=4), min_size=1),
    ).filter(lambda column: any(value is not None for value in column))
)
@settings(max_examples=60, deadline=None)
def test_an_archive_keeps_lists(column: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "lists.npz"
    items = make_set(m=column, n=np.arange(len(column)))
    save_embeddings(items, file)
    again = read_embeddings(file).metadata
    assert again["m"].tolist() == column
    assert again["n"].tolist() == list(range(len(column)))
    lists = pa.array(column)
    assert build_lists(split_lists(lists)).to_pylist() == column


def test_an_archive_with_lengths_that_do_not_fit_loses_that_column_alone(tmp_path: Path) -> None:
    arrays = {"embeddings": np.eye(2), "labels": np.array([1, 2]), "n": np.array([3, 4])}
    for lengths in ([1, 2], [-1, 3], [1], [2**62, 2**62]):
        np.savez(tmp_path / "e.npz", m=np.array([5, 6]), **{"m:lengths": np.array(lengths)}, **arrays)
        assert list(read_embeddings(tmp_path / "e.npz").metadata) == ["n"], lengths


def test_what_compares_single_values_says_so() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    with pytest.raises(InputError, match="'exclude_same' must hold one value a row, found lists"):
        limen.evaluate(vectors, np.arange(40) // 4, exclude_same=[["x"]] * 40)
