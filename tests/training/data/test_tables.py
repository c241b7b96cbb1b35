"""Tables: columns as arrays, and what is refused by column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.data_config import DataConfig
from common.errors import InputError
from embeddings.tables import read_table
from encoder.encoder import Encoder
from tests.training.runs import EVERYTHING, MakeConfig, export_run, load_made, make_data, write_table
from training.data.load_data import load_data
from training.loop.train import train


def test_a_table_is_standardised_by_its_training_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    data = make_data(tmp_path / "t.parquet", kind="table", time_column="day")
    splits = load_data(data)
    rule = splits.preprocessing.rule
    assert rule.kind == "table"
    assert rule.columns == ["a", "b"]
    np.testing.assert_allclose(splits.train.inputs.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(splits.train.inputs.std(axis=0), 1, atol=1e-4)
    assert set(splits.train.metadata) == {"day", "split"}


def test_csv_gives_what_parquet_gives(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    lines = [",".join(table.column_names)]
    lines += [",".join(str(value) for value in row.values()) for row in table.to_pylist()]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    first, second = (
        load_made(tmp_path / name, kind="table", time_column="day") for name in ("t.parquet", "t.csv")
    )
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "label,a\n1,2\n2,x\n",
            "column 'a' must hold numbers, found text: write it as numbers, or leave it out",
        ),
        ("label,a\n1,2\n2,\n", "row 1 of column 'a' has no value"),
        ("label,a\n1,2\n2,inf\n", "row 1 of column 'a' is inf"),
        ("name,a\n1,2\n", "has no column 'label'; found name, a"),
        ("label\n1\n2\n", "has no column of numbers"),
        ("label,a\n", "has no rows"),
        ("label,a,a\n1,2,3\n", "has two columns 'a': rename one"),
        ("label,a\n1,2\n2,3,4\n", "cannot be read as a table"),
        ("label,a\n1,2\n1,3\n", "one class only"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        load_made(tmp_path / "t.csv", kind="table")
    assert "t.csv" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("t.xlsx", "x", {}, r"t\.xlsx ends in '\.xlsx': tables end in \.csv, \.parquet or \.jsonl"),
        ("t.csv", None, {}, r"t\.csv does not exist: expected a table"),
        ("t.parquet", "no parquet", {}, r"t\.parquet cannot be read as Parquet"),
        (
            "t.csv",
            "label,a\n1,1\n1,2\n2,3\n",
            {"split": {"by": "column"}},
            "has no column 'split' to split by",
        ),
        (
            "t.csv",
            "label,a,split\n1,1,train\n1,2,train\n2,3,elsewhere\n",
            {"split": {"by": "column"}},
            "row 2 of column 'split' is 'elsewhere', expected train, validation or test",
        ),
        (
            "t.csv",
            "label,a\n1,1\n1,2\n2,3\n",
            {"split": {"by": "time"}, "time_column": "day"},
            "has no column 'day' to split by; found none",
        ),
        (
            "t.csv",
            "label,a\n1,1\n1,2\n2,3\n2,4\n",
            {"split": {"train": 1, "validation": 0, "test": 1}},
            "1 of 2 classes are left for training, at least 2 are needed",
        ),
    ],
)
def test_what_a_table_lacks_is_named(
    tmp_path: Path, name: str, content: str | None, settings: dict[str, object], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_made(tmp_path / name, kind="table", **settings)


def test_files_of_one_table_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,a\n1,1\n1,2\n2,3\n2,4\n3,5\n3,6\n")
    (tmp_path / "b.csv").write_text("label,a\n4,7\n4,8\n")
    (tmp_path / "c.csv").write_text("label,b\n4,7\n")
    both = {"kind": "table", "split": EVERYTHING}
    paths = [str(tmp_path / f"{name}.csv") for name in "abc"]
    assert load_data(DataConfig.model_validate({"path": paths[:2], **both})).train.n_classes == 4
    with pytest.raises(InputError, match=r"c\.csv has other columns than .*a\.csv"):
        load_data(DataConfig.model_validate({"path": paths, **both}))


def test_a_test_table_must_have_the_columns_that_are_trained_on(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    (tmp_path / "u.csv").write_text("label,b,a,extra\n91,1000,1.5,7\n91,1001,2.5,8\n")
    data = {"kind": "table", "time_column": "day"}
    splits = load_made(tmp_path / "t.parquet", test_path=str(tmp_path / "u.csv"), **data)
    rule = splits.preprocessing.rule
    assert rule.kind == "table"
    assert splits.test is not None
    raw = splits.test.inputs * np.array(rule.stds) + np.array(rule.means)
    np.testing.assert_allclose(raw, [[1.5, 1000], [2.5, 1001]], rtol=1e-4)
    (tmp_path / "v.csv").write_text("label,b\n91,1000\n")
    with pytest.raises(InputError, match=r"v\.csv has no column 'a', which is trained on"):
        load_made(tmp_path / "t.parquet", test_path=str(tmp_path / "v.csv"), **data)


def test_tables_go_from_a_file_to_a_served_encoder(small: MakeConfig, tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    config = small(
        data={"kind": "table", "path": str(tmp_path / "t.parquet"), "time_column": "day"},
        model={"backbone": "mlp", "hidden": [8], "embedding_dim": 4},
    )
    run = train(config, tmp_path / "run")
    export_run(run, tmp_path / "encoder")
    stored = run.load_embeddings("test")
    assert stored is not None
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    rows = [[table[int(row)]["a"], table[int(row)]["b"]] for row in stored.ids]
    np.testing.assert_allclose(Encoder.open(tmp_path / "encoder").encode(rows), stored.vectors, atol=1e-5)


def test_a_text_of_many_lines_is_one_row_wherever_it_lies_in_the_file(tmp_path: Path) -> None:
    texts = [f"text {row}\n" + "a line of it, and\n" * 8 for row in range(20_000)]
    rows = [f'{row % 7},"{text}"' for row, text in enumerate(texts)]
    (tmp_path / "t.csv").write_text("\n".join(["label,text", *rows]))
    assert (tmp_path / "t.csv").stat().st_size > 2 << 20, "Arrow reads blocks of 1 MiB"
    table = read_table(tmp_path / "t.csv")
    assert table.column("text").to_pylist() == texts


def test_a_quote_that_is_left_open_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('label,text\n1,hello\n2,"stray\n3,more\n4,last\n')
    with pytest.raises(InputError, match="row 1 opens a quote that nothing closes"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text('label,text\n1,hello\n2,"two\nlines\n"\n')
    assert read_table(tmp_path / "t.csv").column("text").to_pylist() == ["hello", "two\nlines\n"]
    (tmp_path / "t.csv").write_text('label,text\n1,"two\nlines"\n' + "\n" * 2_000)
    assert read_table(tmp_path / "t.csv").column("text").to_pylist() == ["two\nlines"]
    rows = [f"{row},text" for row in range(400_000)]
    (tmp_path / "t.csv").write_text("\n".join(["label,text", '0,"stray', *rows]))
    with pytest.raises(InputError, match="more than 1 MiB: close a quote that is left open"):
        read_table(tmp_path / "t.csv")


def test_labels_and_ids_are_what_is_written(tmp_path: Path) -> None:
    lines = ["label,id,a", "01,007,1", "01,7,2", "1,08,3", "1,8,4", "NA,9,5", "NA,10,6"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    items = load_made(tmp_path / "t.csv", kind="table", split=EVERYTHING).train
    assert items.labels.tolist() == ["01", "01", "1", "1", "NA", "NA"]
    assert items.ids.tolist() == ["007", "7", "08", "8", "9", "10"]
    assert items.inputs.shape == (6, 1)
    (tmp_path / "t.csv").write_text("label,a\n 1,1\n1 ,2\n1,3\n02,1\n02,2\n")
    items = load_made(tmp_path / "t.csv", kind="table", split=EVERYTHING).train
    assert items.labels.tolist() == ["1", "1", "1", "02", "02"], "spaces around numbers are none of them"


def test_files_of_one_table_may_hold_whole_numbers_and_decimals(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [1, 1, 2, 2], "a": [1.0, 2.0, 3.0, 4.0]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("label,a\n2,1\n3,2\n3,1\n")
    (tmp_path / "c.csv").write_text("label,a\n2,x\n3,y\n")
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.csv", "c.csv")]
    data = {"kind": "table", "split": EVERYTHING}
    items = load_data(DataConfig.model_validate({**data, "path": paths[:2]})).train
    assert items.labels.tolist() == ["1", "1", "2", "2", "2", "3", "3"]
    with pytest.raises(InputError, match=r"c\.csv does not fit .*a\.parquet: .*Field a has incompatible"):
        load_data(DataConfig.model_validate({**data, "path": paths}))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["label", "id"])
def test_an_empty_label_or_id_is_named(tmp_path: Path, name: str, column: str) -> None:
    rows = {"text": ["a", "b", "c", "d"], "label": ["x", "x", "y", "y"], "id": ["1", "2", "3", "4"]}
    rows[column][2] = " "
    if name == "t.csv":
        lines = [",".join(rows), *(",".join(row) for row in zip(*rows.values(), strict=True))]
        (tmp_path / name).write_text("\n".join(lines))
    else:
        pq.write_table(pa.table(rows), tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: row 2 of column '{column}' is empty"):
        load_made(tmp_path / name, kind="text")


def test_a_missing_value_of_metadata_is_masked(tmp_path: Path) -> None:
    writers = pa.array(["ann", None, "bob", "ann"])
    columns = {"writer": writers, "category": writers.dictionary_encode()}
    pq.write_table(
        pa.table({"text": ["a", "b", "c", "d"], "label": [1, 1, 2, 2], **columns}), tmp_path / "t.parquet"
    )
    data = make_data(tmp_path / "t.parquet", kind="text", split=EVERYTHING)
    metadata = load_data(data).train.metadata
    assert metadata["writer"].tolist() == metadata["category"].tolist() == ["ann", None, "bob", "ann"]


@pytest.mark.parametrize("column", ["label", "notes"])
def test_text_that_is_no_utf8_is_named(tmp_path: Path, column: str) -> None:
    latin = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.arange(4, dtype=np.int32)), pa.py_buffer(b"\xe9aa")
    )
    columns = {"text": ["x", "y", "z"], "label": ["a", "a", "b"], column: latin}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"column '{column}' holds text that is not valid UTF-8"):
        load_made(tmp_path / "t.parquet", kind="text")
