"""Tables, lists and texts: what is read, how it is prepared, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from api_schemas.config import Config, DataConfig
from api_schemas.preprocessing import TextInput
from common.errors import ConfigError, InputError
from encoder.encoder import Encoder
from encoder.inputs.text_input import NgramPreprocessing
from tests.training.conftest import exported
from training.data.kinds.text import Text
from training.data.load_data import load_data
from training.data.tables import read_table
from training.loop.train import train
from training.models.backbones.ngram import Ngram

MakeConfig = Callable[..., Config]


def settings(path: Path, **others: object) -> DataConfig:
    return DataConfig.model_validate({"path": str(path), **others})


def write_table(path: Path, rows: int = 60) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 10
    pq.write_table(
        pa.table(
            {
                "label": labels,
                "a": labels + 0.1 * random.normal(size=rows),
                "b": 1000 + labels % 3,
                "day": np.arange(rows) // 10,
                "split": ["train" if label < 5 else "val" if label < 8 else "test" for label in labels],
            }
        ),
        path,
    )


def test_a_table_is_standardised_by_its_training_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    data = settings(tmp_path / "t.parquet", kind="table", time_column="day")
    splits = load_data(data)
    rule = splits.preprocessing.rule
    assert rule.kind == "table"
    assert rule.columns == ["a", "b"]
    np.testing.assert_allclose(splits.train.inputs.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(splits.train.inputs.std(axis=0), 1, atol=1e-4)
    assert set(splits.train.metadata) == {"day", "split"}


def test_a_column_or_the_time_can_say_the_part(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    by_column = load_data(
        settings(tmp_path / "t.parquet", kind="table", time_column="day", split={"by": "column"})
    )
    assert [items.n_classes for items in by_column.parts().values()] == [5, 3, 2]
    write_table(tmp_path / "t.parquet", rows=120)
    by_time = load_data(
        settings(tmp_path / "t.parquet", kind="table", time_column="day", split={"by": "time"})
    )
    days = [items.metadata["day"] for items in by_time.parts().values()]
    assert [len(one) for one in days] == [70, 30, 20], "72, 24 and 24 would cut two days apart"
    assert days[0].max() < days[1].min()
    assert days[1].max() < days[2].min()


def write_times(path: Path, times: list[str]) -> DataConfig:
    """A CSV with these times, two items of each of two classes a time; split by them, three equal parts."""
    rows = [f"{label},{number},{time}" for number, time in enumerate(times) for label in "aabb"]
    path.write_text("\n".join(["label,x,when", *rows]))
    shares = {"by": "time", "train": 1, "validation": 1, "test": 1}
    return settings(path, kind="table", time_column="when", split=shares)


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
    parts = load_data(data).parts()
    assert [sorted(set(items.ids.astype(int) // 4)) for items in parts.values()] == [
        [(place - turn) % 3] for place in range(3)
    ]


@pytest.mark.parametrize(
    ("times", "said"),
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
def test_times_that_cannot_be_ordered_are_named(tmp_path: Path, times: list[str], said: str) -> None:
    with pytest.raises(InputError, match=rf"t\.csv: .*{said}"):
        load_data(write_times(tmp_path / "t.csv", times))


def test_items_of_one_time_stay_together(tmp_path: Path) -> None:
    for times in (list("111123"), list("123333"), list("122223")):
        parts = load_data(write_times(tmp_path / "t.csv", times)).parts()
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
        load_data(settings(tmp_path / "t.parquet", kind="table", **names))
    (tmp_path / "t.csv").write_text("label,x,by\n1,1,3\n1,1,3\n2,1,\n2,1,4\n")
    if by != "column":
        with pytest.raises(InputError, match=r"t\.csv: row 2 \(id '2'\) has no value in column 'by'"):
            load_data(settings(tmp_path / "t.csv", kind="table", **names))


def test_items_marked_for_testing_beside_a_test_set_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    data = {"kind": "table", "time_column": "day", "test_path": str(tmp_path / "t.parquet")}
    with pytest.raises(InputError, match="12 items are marked for testing, but"):
        load_data(settings(tmp_path / "t.parquet", split={"by": "column"}, **data))
    with pytest.raises(ValidationError, match="a fold is one too"):
        settings(tmp_path / "t.parquet", split={"folds": 5}, **data)


def test_csv_gives_what_parquet_gives(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    lines = [",".join(table.column_names)]
    lines += [",".join(str(value) for value in row.values()) for row in table.to_pylist()]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    first, second = (
        load_data(settings(tmp_path / name, kind="table", time_column="day"))
        for name in ("t.parquet", "t.csv")
    )
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "label,a\n1,2\n2,x\n",
            "column 'a' must hold numbers, found string: write it as numbers, or leave it out",
        ),
        ("label,a\n1,2\n2,\n", "row 1 of column 'a' has no value"),
        ("label,a\n1,2\n2,inf\n", "row 1 of column 'a' is inf"),
        ("name,a\n1,2\n", "has no column 'label'; found name, a"),
        ("label\n1\n2\n", "has no column of numbers"),
        ("label,a\n", "has no rows"),
        ("label,a,a\n1,2,3\n", "has two columns 'a': rename one"),
        ("label,a\n1,2\n2,3,4\n", "cannot be read as a table"),
        ("label,a\n1,2\n1,3\n", "one class only"),
        ("label,a\n1.5,2\n2.5,3\n", "column 'label' must hold text or integers, found double"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=said) as refused:
        load_data(settings(tmp_path / "t.csv", kind="table"))
    assert "t.csv" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "others", "said"),
    [
        ("t.xlsx", "x", {}, r"t\.xlsx ends in '\.xlsx': tables end in \.csv, \.parquet or \.jsonl"),
        ("t.csv", None, {}, r"t\.csv does not exist: expected a table"),
        ("t.parquet", "no parquet", {}, r"t\.parquet cannot be read as a table"),
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
    tmp_path: Path, name: str, content: str | None, others: dict[str, object], said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        load_data(settings(tmp_path / name, kind="table", **others))


def test_files_of_one_table_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,a\n1,1\n1,2\n2,3\n2,4\n3,5\n3,6\n")
    (tmp_path / "b.csv").write_text("label,a\n4,7\n4,8\n")
    (tmp_path / "c.csv").write_text("label,b\n4,7\n")
    both = {"kind": "table", "split": {"train": 1, "validation": 0, "test": 0}}
    paths = [str(tmp_path / f"{name}.csv") for name in "abc"]
    assert load_data(DataConfig.model_validate({"path": paths[:2], **both})).train.n_classes == 4
    with pytest.raises(InputError, match=r"c\.csv has other columns than .*a\.csv"):
        load_data(DataConfig.model_validate({"path": paths, **both}))


def test_a_test_table_must_have_the_columns_that_are_trained_on(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    (tmp_path / "u.csv").write_text("label,b,a,extra\n91,1000,1.5,7\n91,1001,2.5,8\n")
    data = {"kind": "table", "time_column": "day"}
    splits = load_data(settings(tmp_path / "t.parquet", test_path=str(tmp_path / "u.csv"), **data))
    rule = splits.preprocessing.rule
    assert rule.kind == "table"
    assert splits.test is not None
    raw = splits.test.inputs * np.array(rule.stds) + np.array(rule.means)
    np.testing.assert_allclose(raw, [[1.5, 1000], [2.5, 1001]], rtol=1e-4)
    (tmp_path / "v.csv").write_text("label,b\n91,1000\n")
    with pytest.raises(InputError, match=r"v\.csv has no column 'a', which is trained on"):
        load_data(settings(tmp_path / "t.parquet", test_path=str(tmp_path / "v.csv"), **data))


def test_a_list_of_images_gives_what_the_folder_gives(drawings: Path, tmp_path: Path) -> None:
    files = sorted(drawings.rglob("*.png"))
    lines = ["path,label,writer"]
    lines += [f"{file},{file.parent.relative_to(drawings)},{number % 4}" for number, file in enumerate(files)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    listed, folder = load_data(settings(tmp_path / "list.csv")), load_data(settings(drawings))
    np.testing.assert_array_equal(listed.train.inputs, folder.train.inputs)
    np.testing.assert_array_equal(listed.train.labels, folder.train.labels)
    assert "writer" in listed.train.metadata
    rows = [line.split(",") for line in lines[1:]]
    columns = dict(zip(("path", "label", "writer"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    by_parquet = load_data(settings(tmp_path / "list.parquet"))
    np.testing.assert_array_equal(by_parquet.train.inputs, folder.train.inputs)
    assert by_parquet.train.ids.tolist() == listed.train.ids.tolist()
    (tmp_path / "list.csv").write_text("path,label\nnone.png,1\nnone.png,2\nnone.png,2\nnone.png,3\n")
    with pytest.raises(InputError, match=r"none\.png"):
        load_data(settings(tmp_path / "list.csv"))


def write_texts(path: Path) -> None:
    topics = ["card lost", "balance low", "transfer money", "exchange rate", "open account", "close account"]
    endings = ["please", "now", "help me", "what do i do", "today"]
    with path.open("w") as file:
        for topic in topics:
            for ending in endings:
                file.write(json.dumps({"text": f"{topic} {ending}", "label": topic}) + "\n")


def test_the_same_text_gives_the_same_numbers_whatever_its_case_and_spaces() -> None:
    rule = TextInput(buckets=1000, length=32, characters=[3], words=[1, 2])
    compute_numbers = NgramPreprocessing(rule).compute_numbers
    numbers = compute_numbers("Lost  my card\n")
    np.testing.assert_array_equal(numbers, compute_numbers("lost my CARD"))
    assert numbers.dtype == np.float32
    assert numbers.max() < 1000
    assert (numbers[:5] > 0).all(), "three words and two pairs come first"
    assert not np.array_equal(numbers, compute_numbers("my card lost"))
    assert len(compute_numbers("x" * 10_000)) == 32
    assert compute_numbers("").max() == 0


def test_ngrams_are_averaged_and_padding_counts_nothing() -> None:
    backbone = Ngram((4,), buckets=10, width=3, dropout=0.0).eval()
    vectors = backbone.vectors.weight
    found = backbone(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(found[0], (vectors[1] + vectors[2]) / 2)
    torch.testing.assert_close(found[1], torch.zeros(3))


def test_texts_go_from_a_file_to_a_served_encoder(small: MakeConfig, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl")
    config = small(
        data={
            "kind": "text",
            "path": str(tmp_path / "texts.jsonl"),
            "text": {"buckets": 500, "length": 40},
            "split": {"train": 2, "validation": 2, "test": 2},
        },
        model={"backbone": "ngram", "width": 16, "embedding_dim": 8},
    )
    run = train(config, tmp_path / "run")
    assert exported(run, tmp_path / "encoder") <= 1e-5
    encoder = Encoder.open(tmp_path / "encoder")
    assert encoder.kind == "text"
    stored = run.embeddings("test")
    assert stored is not None
    texts = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    served = encoder.encode([texts[int(row)] for row in stored.ids])
    np.testing.assert_allclose(served, stored.vectors, atol=1e-5)
    with pytest.raises(InputError, match="texts that are not empty"):
        encoder.encode(["  "])


def test_tables_go_from_a_file_to_a_served_encoder(small: MakeConfig, tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet")
    config = small(
        data={"kind": "table", "path": str(tmp_path / "t.parquet"), "time_column": "day"},
        model={"backbone": "mlp", "hidden": [8], "embedding_dim": 4},
    )
    run = train(config, tmp_path / "run")
    exported(run, tmp_path / "encoder")
    stored = run.embeddings("test")
    assert stored is not None
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    rows = [[table[int(row)]["a"], table[int(row)]["b"]] for row in stored.ids]
    np.testing.assert_allclose(Encoder.open(tmp_path / "encoder").encode(rows), stored.vectors, atol=1e-5)


def test_texts_need_the_ngram_backbone_and_only_texts_do(small: MakeConfig, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl")
    text = {"kind": "text", "path": str(tmp_path / "texts.jsonl"), "split": {"validation": 0}}
    with pytest.raises(ConfigError, match="'conv4' does not take text inputs"):
        train(small(data=text), tmp_path / "run")
    with pytest.raises(ConfigError, match="'ngram' does not take image inputs"):
        train(small(model={"backbone": "ngram"}), tmp_path / "other")


def test_an_empty_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nhello,1\n   ,2\n")
    with pytest.raises(InputError, match="row 1 of column 'text' is empty"):
        load_data(settings(tmp_path / "t.csv", kind="text"))


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
    everything = {"train": 1, "validation": 0, "test": 0}
    items = load_data(settings(tmp_path / "t.csv", kind="table", split=everything)).train
    assert items.labels.tolist() == ["01", "01", "1", "1", "NA", "NA"]
    assert items.ids.tolist() == ["007", "7", "08", "8", "9", "10"]
    assert items.inputs.shape == (6, 1)
    (tmp_path / "t.csv").write_text("label,a\n 1,1\n1 ,2\n1,3\n02,1\n02,2\n")
    items = load_data(settings(tmp_path / "t.csv", kind="table", split=everything)).train
    assert items.labels.tolist() == ["1", "1", "1", "02", "02"], "spaces around numbers are none of them"


def test_files_of_one_table_may_hold_whole_numbers_and_decimals(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [1, 1, 2, 2], "a": [1.0, 2.0, 3.0, 4.0]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("label,a\n2,1\n3,2\n3,1\n")
    (tmp_path / "c.csv").write_text("label,a\n2,x\n3,y\n")
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.csv", "c.csv")]
    data = {"kind": "table", "split": {"train": 1, "validation": 0, "test": 0}}
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
        load_data(settings(tmp_path / name, kind="text"))


def test_one_long_text_takes_the_room_of_one(tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(2_000)]
    texts[1_000] += " long" * 50_000  # an array of one width would take 2 GB
    labels = [str(row % 4) for row in range(2_000)]
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "t.parquet")
    data = settings(tmp_path / "t.parquet", kind="text", split={"train": 1, "validation": 0, "test": 0})
    tracemalloc.start()
    items = load_data(data).train
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100 << 20
    assert len(items) == 2_000
    assert [len(one) for one in items.metadata["text"][999:1002]] == [8, 1_000, 9], "the beginning is kept"
    assert Text(data).read_all().inputs.tolist() == texts
    pq.write_table(pa.table({"text": labels, "label": labels, "notes": texts}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1000 of column 'notes' has 250009 characters, .*leave the co"):
        load_data(data)
    pq.write_table(pa.table({"text": labels, "label": texts}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1000 of column 'label' has 250009 characters"):
        load_data(data)


def test_a_missing_value_of_metadata_is_empty(tmp_path: Path) -> None:
    writers = pa.array(["ann", None, "bob", "ann"])
    columns = {"writer": writers, "category": writers.dictionary_encode()}
    pq.write_table(
        pa.table({"text": ["a", "b", "c", "d"], "label": [1, 1, 2, 2], **columns}), tmp_path / "t.parquet"
    )
    data = settings(tmp_path / "t.parquet", kind="text", split={"train": 1, "validation": 0, "test": 0})
    metadata = load_data(data).train.metadata
    assert metadata["writer"].tolist() == metadata["category"].tolist() == ["ann", "", "bob", "ann"]


@pytest.mark.parametrize("column", ["label", "notes"])
def test_text_that_is_no_utf8_is_named(tmp_path: Path, column: str) -> None:
    latin = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.arange(4, dtype=np.int32)), pa.py_buffer(b"\xe9aa")
    )
    columns = {"text": ["x", "y", "z"], "label": ["a", "a", "b"], column: latin}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"column '{column}' holds text that is not valid UTF-8"):
        load_data(settings(tmp_path / "t.parquet", kind="text"))


@pytest.mark.parametrize("kind", ["table", "text", "embeddings"])
def test_an_id_that_comes_twice_is_refused_with_its_rows(tmp_path: Path, kind: str) -> None:
    ids = [f"a{n}" for n in range(40)]
    ids[38] = "a8"  # of the same class, so of the same part
    value = {"table": "", "text": "text ", "embeddings": ""}[kind]
    rows = [f"{one},{n % 10},{value}{n}" for n, one in enumerate(ids)]
    name = "t.csv"
    if kind == "embeddings":
        name = "x.npy"
        np.save(tmp_path / name, np.random.default_rng(0).normal(size=(40, 3)))
    lines = "\n".join(["id,label,text", *rows])
    (tmp_path / ("x.labels.csv" if kind == "embeddings" else name)).write_text(lines)
    with pytest.raises(InputError, match=rf"{name}: rows 8 and 38 of column 'id' are both 'a8'"):
        load_data(settings(tmp_path / name, kind=kind))
