"""Items as columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from common.errors import BundleError, InputError
from embeddings.embedding_set import EmbeddingSet
from index.items.item_table import ItemTable
from index.items.metadata import build_metadata_column
from tests.index.conftest import make_unit_rows


@pytest.mark.parametrize("n", [1, 2, 57])
def test_every_id_leads_to_its_row_and_no_other_does(n: int, tmp_path: Path) -> None:
    ids = [f"käse-{number * 37 % n}" for number in range(n)]
    items = EmbeddingSet.from_arrays(make_unit_rows(np.random.default_rng(0), n), ["x"] * n, ids)
    built = ItemTable.from_set(items, np.arange(n), np.zeros(n, dtype=bool))
    built.save(tmp_path / "items.parquet")
    for table in (built, ItemTable.load(tmp_path / "items.parquet")):
        assert [table.get_row(item_id) for item_id in ids] == list(range(n))
        assert table.get_row("käse-") is None
        assert table.get_row("zz") is None
        assert table.ids.take(np.arange(n)) == ids
        assert [ids[row] for row in np.argsort(table.rank)] == sorted(ids)


def test_metadata_keeps_its_types_and_leaves_out_what_is_missing(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "text": np.array(["a", None], dtype=object),
        "whole": np.array([1, 2**40]),
        "real": np.array([np.nan, 0.5]),
        "yes": np.array([True, False]),
        "day": np.array(["2026-01-02", "2026-01-03"], dtype="datetime64[D]"),
    }
    items = EmbeddingSet.from_arrays(make_unit_rows(np.random.default_rng(0), 2), ["x", "y"], None, columns)
    ItemTable.from_set(items, np.arange(2), np.zeros(2, dtype=bool)).save(tmp_path / "items.parquet")
    table = ItemTable.load(tmp_path / "items.parquet")
    assert table.get_metadata(0) == {"text": "a", "whole": 1, "yes": True, "day": "2026-01-02"}
    assert table.get_metadata(1) == {"whole": 2**40, "real": 0.5, "yes": False, "day": "2026-01-03"}


def test_rows_in_any_order_have_what_they_have_one_by_one(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "text": ["käse", "", "a", "bb", "a"],
        "whole": [1, -(2**62), 0, 3, 3],
        "real": np.array([0.5, -1.0, 0.0, 1e300, 2.0]),
        "narrow": np.array([0.1, 0.2, 0.3, 0.4, 0.5], dtype=np.float32),
        "yes": [True, False, False, True, True],
        "day": np.array([f"2026-01-0{day}" for day in range(1, 6)], dtype="datetime64[D]"),
        "at": np.array([f"2026-01-0{day}T12:00:00.5" for day in range(1, 6)], dtype="datetime64[us]"),
        "list": [["a"], [], ["b", "c"], ["a"], ["d"]],
        "nothing": [None] * 5,
    }
    lacking = {f"{name}, some": [None, *list(values)[1:4], None] for name, values in whole.items()}
    rows = make_unit_rows(np.random.default_rng(0), 5)
    items = EmbeddingSet.from_arrays(rows, ["x"] * 5, None, whole | lacking)
    built = ItemTable.from_set(items, np.arange(5), np.zeros(5, dtype=bool))
    built.save(tmp_path / "items.parquet")
    cut = replace(built, metadata=pa.concat_tables([built.metadata[:1], built.metadata[1:3], built.metadata]))
    sliced = replace(built, metadata=built.metadata[2:])
    for table in (built, ItemTable.load(tmp_path / "items.parquet"), cut, sliced):
        one_by_one = table.get_metadata_block(0, table.metadata.num_rows)
        order = np.array([2, 0, 1, 2, *range(len(one_by_one))])
        taken = table.take_metadata(order)
        assert taken == [one_by_one[row] for row in order]
        assert [list(map(type, row.values())) for row in taken] == [
            list(map(type, one_by_one[row].values())) for row in order
        ]
        assert table.take_metadata(np.empty(0, dtype=np.int64)) == []


@pytest.mark.parametrize("name", ["id", "label", "_rank", "$x"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="rename it"):
        build_metadata_column(name, ["a"])


@pytest.mark.parametrize(
    "values", [np.array([1, "a"], dtype=object), np.array([[1], [2]]), np.array([b"\xff"], dtype=object)]
)
def test_values_that_are_no_plain_column_are_refused(values: Any) -> None:
    with pytest.raises(InputError, match="'mixed'"):
        build_metadata_column("mixed", values)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BundleError, match=r"items\.parquet"):
        ItemTable.load(tmp_path / "items.parquet")
