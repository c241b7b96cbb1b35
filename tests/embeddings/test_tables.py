"""Tables of every kind of file: what is found out about them, and what is refused in a sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import InputError
from embeddings import json_rows
from embeddings.tables import read_metadata_columns, read_table, read_tables


def write(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["+1", "-2"], [1, -2]),
        (["01", "2"], ["01", "2"]),
        (["9007199254740993", ""], [9007199254740993, None]),
        (["18446744073709551615", "1"], [18446744073709551615, 1]),
        (["18446744073709551616", "1"], ["18446744073709551616", "1"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["1", "0.5"], [1.0, 0.5]),
        (["1e5", "NA"], [100000.0, None]),
        (["1.10", "NaN"], [1.1, None]),
        (["007.5", "1"], ["007.5", "1"]),
        (["TRUE", "False"], [True, False]),
        (["true", "null"], [True, None]),
        (["true", "1"], ["true", "1"]),
        (["NA", "DE"], ["NA", "DE"]),
        (["NA", "NA"], ["NA", "NA"]),
        (["", "x"], [None, "x"]),
        (["1 000", "2"], ["1 000", "2"]),
        (["0x10", "1"], ["0x10", "1"]),
        (["12:30", "13:00"], ["12:30", "13:00"]),
        (["2024", "2025"], [2024, 2025]),
        (["2024-01", "2024-02"], ["2024-01", "2024-02"]),
        (["2024-01-31", "x"], ["2024-01-31", "x"]),
        (["2024-02-30", "2024-01-01"], ["2024-02-30", "2024-01-01"]),
    ],
)
def test_the_type_of_a_column_is_that_of_all_its_values(
    tmp_path: Path, values: list[str], expected: list[Any]
) -> None:
    path = write(tmp_path, "t.csv", "label,m\n" + "".join(f"a,{value}\n" for value in values))
    read = read_metadata_columns(read_table(path, {"label"}), {"label"}, path)["m"].tolist()
    assert read == expected
    assert [type(value) for value in read] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", b"\xef\xbb\xbf", "has no rows"),
        ("t.csv", "\n\n", "has no rows"),
        ("t.csv", ",\n1,2\n", "has no column with a name"),
        ("t.csv", "label,a\n1,2\n'x,y',3\n", "separated by commas: .*put texts that hold the separator into"),
        ("t.csv", "label,a\nx,1\ny,2\n".encode("utf-16")[:-1], "is not in utf-16"),
        ("t.csv", "label,a\n日本,x\n".encode("shift_jis"), "'日本,x' with shift_jis"),
        ("t.jsonl", '{"label": "é"}'.encode("latin-1"), "line 1 is not in utf-8"),
        ("t.jsonl", "[1, 2]", "line 1 is no object of columns and values"),
        ("t.jsonl", '{"label": "a", "m": 1}\n{"label": "b", "m": "x"}', "'m' must be all text, all numbers"),
        ("t.jsonl", '{"label": "a", "m": "\\ud800"}', "row 0 of column 'm' holds half a character"),
        ("t.jsonl", '{"label": ' + "[" * 100_000, "line 1 is not JSON"),
        ("t.xlsx", "x", "save the sheet as 'CSV UTF-8'"),
        ("t.gz", "x", "unpack it"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as refused:
        read_table(path, {"label"})
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_encoding_that_there_is_not_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "label\na\n")
    with pytest.raises(
        InputError, match=r"data\.encoding: there is no encoding 'utf8mb4'; e\.g\. utf-8, cp1250"
    ):
        read_table(path, encoding="utf8mb4")


@pytest.mark.parametrize(
    "header",
    ["label;a;b", "label\ta\tb", "label|a|b", '"label","a","b"', "\n\nlabel,a,b", "sep=,\nlabel,a,b"],
)
def test_a_header_says_what_separates(tmp_path: Path, header: str) -> None:
    separator = next((mark for mark in ";\t|" if mark in header), ",")
    row = separator.join(["x", '"1,5; 2|3\t4"', "z"])
    table = read_table(write(tmp_path, "t.csv", f"{header}\n{row}\n{row}\n"))
    assert table.column_names == ["label", "a", "b"]
    assert table.column("a").to_pylist() == ["1,5; 2|3\t4"] * 2


def test_a_wider_row_is_no_row_of_names(tmp_path: Path) -> None:
    named = read_table(write(tmp_path, "t.csv", 'label,a\n"1",x,2\n"2",y,3\n'), {"label"})
    assert named.column("label").to_pylist() == ["x", "y"], "R's write.table"
    with pytest.raises(InputError, match="Expected 2 columns, got 3"):
        read_table(write(tmp_path, "t.csv", "label,a\nx,1,2\ny,2,3\n"))


def test_text_columns_of_two_files_are_typed_together(tmp_path: Path) -> None:
    first = write(tmp_path, "a.csv", "label,zip,n\na,01234,1\n")
    second = write(tmp_path, "b.csv", "label,zip,n\nb,12345,0.5\n")
    pq.write_table(pa.table({"label": ["c"], "zip": ["x"], "n": [2.0]}), tmp_path / "c.parquet")
    table = read_tables([first, second], {"label"})
    metadata = read_metadata_columns(table, {"label"}, first)
    assert metadata["zip"].tolist() == ["01234", "12345"]
    assert metadata["n"].tolist() == [1.0, 0.5]
    table = read_tables([first, tmp_path / "c.parquet"], {"label"})
    assert read_metadata_columns(table, {"label"}, first)["zip"].tolist() == ["01234", "x"]


def test_types_that_other_tools_write_are_kept_or_left_out_by_name(tmp_path: Path) -> None:
    columns = {
        "label": ["a", "b"],
        "half": pa.array([1.5, None], pa.float16()),
        "binary": pa.array([b"\xff", b"x"]),
        "spark": pa.array([b"text", None]),
        "lists": [[1], None],
        "booleans": [[True], None],
        "objects": [{"a": 1}, None],
        "clock": pa.array([3_600, None], pa.time32("s")),
        "lasted": pa.array([1_500, None], pa.duration("ms")),
        "whole": pa.array([2**60, None], pa.decimal128(25, 0)),
        "view": pa.array(["x", None], pa.string_view()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    said: list[str] = []
    table = read_table(tmp_path / "t.parquet", {"label"})
    metadata = read_metadata_columns(table, {"label"}, tmp_path / "t.parquet", said.append)
    assert {name: column.tolist() for name, column in metadata.items()} == {
        "half": [1.5, None],
        "spark": ["text", None],
        "clock": ["01:00:00", None],
        "lasted": [1.5, None],
        "whole": [2**60, None],
        "view": ["x", None],
        "lists": [[1], None],
    }
    assert [name for name in columns if any(f"'{name}'" in sentence for sentence in said)] == [
        "binary",
        "booleans",
        "objects",
    ]


def test_json_lines_are_read_whatever_lies_between_them(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '\ufeff\n\r\n{"a": "x"}\r\n\n{"b": 2}\n{"a": "y", "b": 3}')
    assert read_table(path).to_pydict() == {"a": ["x", None, "y"], "b": [None, 2, 3]}
    path = write(tmp_path, "t.jsonl", '\n[{"a": "x"},\n {"a": "y"}]\n')
    assert read_table(path).to_pydict() == {"a": ["x", "y"]}
    path = write(tmp_path, "t.jsonl", '\n{"a": "x"}\n\n{"a": ')
    with pytest.raises(InputError, match=r"line 4 is not JSON \(Expecting value at character 7\)"):
        read_table(path)


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
) -> None:
    rows = [{"a": 'x "]},{[', "b": 12.5}, {}, {"a": "é\n\U0001f600", "b": None}]
    monkeypatch.setattr(json_rows, "BLOCK_CHARACTERS", block)
    path = write(tmp_path, "t.jsonl", f"\n {json.dumps(rows, indent=indent)} \n")
    assert list(json_rows.iterate_json(path, None)) == rows
    assert list(json_rows.iterate_json(write(tmp_path, "t.jsonl", "[ ]"), None)) == []


def test_rows_of_an_array_come_before_its_end_is_read(tmp_path: Path) -> None:
    many = ['{"a": "x"}'] * 300_000
    path = write(tmp_path, "t.jsonl", f"[{','.join(many)}, no JSON")
    rows = json_rows.iterate_json(path, None)
    assert next(rows) == {"a": "x"}
    with pytest.raises(InputError, match="line 1 is not JSON"):
        for _ in rows:
            pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1},\n\n {"a": ]', r"line 3 is not JSON \(Expecting value\)"),
        ('[{"a": 1}\n {"a": 2}]', r"line 2 is not JSON \(Expecting ',' or '\]'\)"),
        ('[{"a": 1},\n]', r"line 2 is not JSON \(Expecting value\)"),
        ('[{"a": 1},', r"line 1 is not JSON \(Expecting value\)"),
        ('[{"a": 1}', r"line 1 is not JSON \(Expecting ',' or '\]'\)"),
        ('[{"a": 1}]\n[{"a": 2}]', r"line 2 is not JSON \(Extra data\)"),
        ('[{"a": 1},\n7]', "line 2 is no object of columns and values"),
        ('[{"a": ' + "[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_what_is_no_array_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(write(tmp_path, "t.jsonl", content))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"text,label\na,x\n", mtime=0), "is compressed (gzip): unpack it."),
        (b"PK\x03\x04\x14\x00\x06\x00", "is a workbook (.xlsx) or another zip archive: save the sheet"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page, as a download that needs a sign-in gives"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "run `git lfs pull`"),
        (b"PAR1\x15\x04", "let its name end in .parquet"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_table(write(tmp_path, name, content))
    assert said in str(refused.value)


@pytest.mark.parametrize("line", ["text,label", "text"])
def test_a_short_file_of_one_line_without_an_end_has_no_rows(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match="has no rows"):
        read_table(write(tmp_path, "t.csv", line))
