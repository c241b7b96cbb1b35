"""Splits into train, validation and test: by class, group, time or column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import EVERYTHING, load_made, make_data, write_table
from training.data.load_data import load_data


def test_parts_share_no_class_and_lose_no_item(drawings: Path) -> None:
    parts = load_made(drawings).get_parts()
    assert [items.n_classes for items in parts.values()] == [9, 3, 3]
    labels = [set(items.labels.tolist()) for items in parts.values()]
    assert not labels[0] & labels[1] | labels[0] & labels[2] | labels[1] & labels[2]
    assert sum(len(items) for items in parts.values()) == 90


def test_the_split_follows_from_its_seed(drawings: Path) -> None:
    first, again = load_made(drawings), load_made(drawings)
    another = load_made(drawings, split={"seed": 1})
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert set(first.train.labels) != set(another.train.labels)


def test_every_class_is_in_the_test_part_of_one_fold(drawings: Path) -> None:
    tested: list[str] = []
    for fold in range(5):
        test = load_made(drawings, split={"folds": 5, "fold": fold}).test
        assert test is not None
        tested += np.unique(test.labels).tolist()
    assert len(tested) == len(set(tested)) == 15


def test_a_part_may_be_empty(drawings: Path) -> None:
    splits = load_made(drawings, split=EVERYTHING)
    assert splits.validation is None
    assert splits.test is None
    assert len(splits.train) == 90


def test_a_validation_part_that_cannot_be_measured_is_refused_before_training(drawings: Path) -> None:
    with pytest.raises(InputError, match=r"classes are left for validation.*data\.split\.validation"):
        load_made(drawings, split={"train": 14, "validation": 1, "test": 0})


def test_folds_and_time_leave_no_item_out_or_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "e.npz",
        embeddings=random.normal(size=(70, 4)),
        labels=np.arange(70) % 14,
        day=random.permutation(70),
    )
    for split in ({"folds": 7, "fold": 3}, {"by": "time"}):
        data = make_data(tmp_path / "e.npz", kind="embeddings", time_column="day", split=split)
        parts = load_data(data).get_parts()
        ids = np.concatenate([items.ids for items in parts.values()])
        assert len(ids) == len(set(ids)) == 70
        if "folds" in split:
            assert [items.n_classes for items in parts.values()] == [10, 2, 2]
        else:
            days = [items.metadata["day"] for items in parts.values()]
            assert [len(values) for values in days] == [42, 14, 14]
            assert days[0].max() < days[1].min() <= days[1].max() < days[2].min()


def test_a_column_or_the_time_can_say_the_part(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    by_column = load_made(tmp_path / "t.parquet", kind="table", time_column="day", split={"by": "column"})
    assert [items.n_classes for items in by_column.get_parts().values()] == [5, 3, 2]
    write_table(tmp_path / "t.parquet", rows=120)
    by_time = load_made(tmp_path / "t.parquet", kind="table", time_column="day", split={"by": "time"})
    days = [items.metadata["day"] for items in by_time.get_parts().values()]
    assert [len(values) for values in days] == [70, 30, 20], "72, 24 and 24 would cut two days apart"
    assert days[0].max() < days[1].min()
    assert days[1].max() < days[2].min()


def write_times(path: Path, times: list[str]) -> DataConfig:
    """A CSV with these times, two items of each of two classes a time; split by them, three equal parts."""
    rows = [f"{label},{number},{time}" for number, time in enumerate(times) for label in "aabb"]
    path.write_text("\n".join(["label,x,when", *rows]))
    fractions = {"by": "time", "train": 1, "validation": 1, "test": 1}
    return make_data(path, kind="table", time_column="when", split=fractions)


@pytest.mark.parametrize(
    "times",
    [
        ["9", "10", "100"],
        ["9.5", "10", "100.5"],
        ["2024-09-01", "2024-10-01", "2025-01-01"],
        ["2024-09-01T10:00:00", "2024-09-01T10:00:01", "2024-09-01T11:00:00"],
        ["2024-09-01T10:00:00Z", "2024-09-01T09:00:00-02:00", "2024-09-02"],
        ["2024-09-01", "2024-09-01 08:00", "2024-09-01T07:00:00-06:00"],
        ["20240901", "2024-10-01", "2025-01-01"],
    ],
)
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_the_earliest_train_however_times_are_written(tmp_path: Path, times: list[str], turn: int) -> None:
    data = write_times(tmp_path / "t.csv", times[turn:] + times[:turn])
    parts = load_data(data).get_parts()
    assert [sorted(set(items.ids.astype(int) // 4)) for items in parts.values()] == [
        [(position - turn) % 3] for position in range(3)
    ]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["9/1/2024", "10/1/2024", "1/1/2025"], r"row 0 of column 'when' is '9/1/2024', .*2024-01-31 .*ISO"),
        (["2024-09-01", "soon", "2025-01-01"], r"row 4 of column 'when' is 'soon', which is no time"),
        (
            ["2024-09-01", "", "2025-01-01"],
            r"row 4 \(id '4'\) has no value in column 'when', which the split",
        ),
        (["9", "", "11"], r"row 4 .* has no value in column 'when'"),
        (["today", "", "soon"], r"row 4 .* has no value in column 'when'"),
        (["9", "10", "10"], r"'when' has 2 different times, too few for 3 parts"),
    ],
)
def test_times_that_cannot_be_ordered_are_named(tmp_path: Path, times: list[str], message: str) -> None:
    with pytest.raises(InputError, match=rf"t\.csv: .*{message}"):
        load_data(write_times(tmp_path / "t.csv", times))


def test_items_of_one_time_stay_together(tmp_path: Path) -> None:
    for times in (list("111123"), list("123333"), list("122223")):
        parts = load_data(write_times(tmp_path / "t.csv", times)).get_parts()
        assert [set(items.metadata["when"].tolist()) for items in parts.values()] == [{1}, {2}, {3}]


@pytest.mark.parametrize("missing", [None, " "])
@pytest.mark.parametrize("by", ["group", "time", "column"])
def test_an_item_without_the_value_to_split_by_is_named(tmp_path: Path, by: str, missing: str | None) -> None:
    values = {"group": "ann", "time": "2024-01-31", "column": "train"}
    column = [missing if row == 7 else values[by] for row in range(20)]
    pq.write_table(
        pa.table({"label": np.arange(20) % 4, "x": np.arange(20), "by": column}), tmp_path / "t.parquet"
    )
    names = {"group_column": "by", "time_column": "by", "split_column": "by", "split": {"by": by}}
    with pytest.raises(InputError, match=r"t\.parquet: row 7 \(id '7'\) has no value in column 'by'"):
        load_made(tmp_path / "t.parquet", kind="table", **names)
    (tmp_path / "t.csv").write_text("label,x,by\n1,1,3\n1,1,3\n2,1,\n2,1,4\n")
    if by != "column":
        with pytest.raises(InputError, match=r"t\.csv: row 2 \(id '2'\) has no value in column 'by'"):
            load_made(tmp_path / "t.csv", kind="table", **names)


def test_items_marked_for_testing_beside_a_test_set_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    data = {"kind": "table", "time_column": "day", "test_path": str(tmp_path / "t.parquet")}
    with pytest.raises(InputError, match="12 items are marked for testing, but"):
        load_made(tmp_path / "t.parquet", split={"by": "column"}, **data)
    with pytest.raises(ValidationError, match="a fold is one too"):
        make_data(tmp_path / "t.parquet", split={"folds": 5}, **data)
