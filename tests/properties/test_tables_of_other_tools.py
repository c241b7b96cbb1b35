"""Any table that pandas, polars or pyarrow writes is read with the same labels, ids and missing values."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api_schemas.data_config import DataConfig
from embeddings.files import read_embeddings
from training.data.kinds import open_kind

Columns = dict[str, list[Any]]
LETTERS = st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"])
WRITTEN_AS_NUMBERS = ["01", "1", "1e5", "1.10", "inf", "NA", "nan", "None", "true", "2024-01-31", "-", "0x1"]
LABELS = st.sampled_from(WRITTEN_AS_NUMBERS) | st.text(LETTERS, min_size=1, max_size=6).filter(
    lambda text: text == text.strip() != ""
)
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=UTC)
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "words": st.text(LETTERS, min_size=1, max_size=6).map(lambda text: f"w{text}."),
    "group": st.sampled_from(["red", "green", "blue"]),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(-1e6, 1e6).map(lambda number: float(np.round(number, 3)) + 0.5),
    "yes": st.booleans(),
    "day": st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    "when": TIMES,
}
SHORT, LONG = 4, 100  # examples


@st.composite
def draw_columns(draw: st.DrawFn) -> Columns:
    """Labels, distinct ids, and a column of every kind with nulls in it; one value of each is there."""
    n = draw(st.integers(2, 8))
    columns: Columns = {"label": draw(st.lists(LABELS, min_size=n, max_size=n))}
    columns["id"] = draw(st.lists(LABELS, min_size=n, max_size=n, unique=True))
    columns["text"] = [f"text {row}" for row in range(n)]
    for name, values in VALUES.items():
        column = draw(st.lists(st.none() | values, min_size=n, max_size=n))
        column[draw(st.integers(0, n - 1))] = draw(values)
        columns[name] = column
    return columns


def build_pandas(columns: Columns) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series(values, dtype="object") for name, values in columns.items()})
    kinds = {"label": "category", "id": "string", "group": "category", "whole": "Int64", "real": "Float64"}
    frame = frame.astype({**kinds, "yes": "boolean", "words": "string"})
    frame["when"] = pd.to_datetime(frame["when"], utc=True).dt.as_unit("us").dt.tz_convert("Asia/Kolkata")
    return frame.sample(frac=1, random_state=0).sort_index()


def build_polars(columns: Columns) -> pl.DataFrame:
    kinds = {
        "label": pl.Categorical,
        "id": pl.String,
        "text": pl.String,
        "words": pl.String,
        "group": pl.Enum(["red", "green", "blue"]),
        "whole": pl.Int64,
        "real": pl.Float64,
        "yes": pl.Boolean,
        "day": pl.Date,
        "when": pl.Datetime("us", "UTC"),
    }
    return pl.DataFrame(columns, schema=kinds)


def build_arrow(columns: Columns) -> pa.Table:
    table = pa.table({**columns, "when": pa.array(columns["when"], pa.timestamp("us", "America/New_York"))})
    for name in ("label", "group"):
        position = table.column_names.index(name)
        table = table.set_column(position, name, table.column(name).dictionary_encode())
    return table


def write_arrow_csv(columns: Columns, path: Path) -> None:
    table = build_arrow(columns)
    plain = dict(zip(table.column_names, table.schema.types, strict=True))
    for name, kind in plain.items():  # which Arrow's writer does not take
        if pa.types.is_dictionary(kind):
            position = table.column_names.index(name)
            table = table.set_column(position, name, table.column(name).cast(pa.string()))
    pyarrow.csv.write_csv(table, path)


def write_json_lines(columns: Columns, path: Path) -> None:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = [json.dumps(row, default=lambda value: value.isoformat()) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


WRITERS: dict[str, Callable[[Columns, Path], Any]] = {
    "pandas.parquet": lambda columns, path: build_pandas(columns).to_parquet(path),
    "pandas.csv": lambda columns, path: build_pandas(columns).to_csv(path),
    "pandas-utf16-semicolons.csv": lambda columns, path: build_pandas(columns).to_csv(
        path, sep=";", index=False, encoding="utf-16"
    ),
    "pandas-tabs.tsv": lambda columns, path: build_pandas(columns).to_csv(path, sep="\t", index=False),
    "pandas.jsonl": lambda columns, path: (
        build_pandas(columns)
        .assign(day=lambda frame: frame["day"].map(lambda day: day and day.isoformat()))
        .to_json(path, orient="records", lines=True, date_format="iso")
    ),
    "polars.parquet": lambda columns, path: build_polars(columns).write_parquet(path),
    "polars.csv": lambda columns, path: build_polars(columns).write_csv(path),
    "polars.ndjson": lambda columns, path: build_polars(columns).write_ndjson(path),
    "pyarrow.parquet": lambda columns, path: pq.write_table(build_arrow(columns), path),
    "pyarrow.csv": write_arrow_csv,
    "json.jsonl": write_json_lines,
}


def show(value: Any) -> Any:
    """A value as it is compared: instants in UTC, floats rounded."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    return value


EXAMPLE: Columns = {
    "label": ["01", "1"],
    "id": ["1e5", "1.10"],
    "text": ["a", "b"],
    "words": [None, "w,;\t\"'\n."],
    "group": ["blue", None],
    "whole": [None, 2**53 + 1],
    "real": [0.5, None],
    "yes": [None, True],
    "day": [None, date(2024, 1, 31)],
    "when": [datetime(2024, 1, 31, 12, tzinfo=UTC), None],
}


def check_table(path: Path, write: Callable[[Columns, Path], Any], columns: Columns) -> None:
    write(columns, path)
    said: list[str] = []
    items = open_kind(DataConfig.model_validate({"kind": "text", "path": str(path)}), said.append).read_all()
    assert items.labels.tolist() == columns["label"]
    assert items.ids.tolist() == columns["id"]
    assert set(items.metadata) == set(columns) - {"label", "id"}
    for column in VALUES:
        read = [show(value) for value in items.metadata[column].tolist()]
        assert read == [show(value) for value in columns[column]], column
    assert all("is left out" not in sentence or "has no name" in sentence for sentence in said)


def check_embeddings(path: Path, tool: str, columns: Columns) -> None:
    vectors = [[1.0, float(row)] for row in range(len(columns["label"]))]
    if tool == "pandas":
        build_pandas(columns).assign(embedding=vectors).to_parquet(path)
    elif tool == "polars":
        frame = build_polars(columns)
        frame.with_columns(pl.Series("embedding", vectors, dtype=pl.Array(pl.Float32, 2))).write_parquet(path)
    else:
        pq.write_table(build_arrow(columns).append_column("embedding", [vectors]), path)
    items = read_embeddings(path)
    assert items.labels.tolist() == columns["label"]
    assert items.ids.tolist() == columns["id"]
    for column in VALUES:
        read = [show(value) for value in items.metadata[column].tolist()]
        assert read == [show(value) for value in columns[column]], column


@pytest.mark.parametrize("examples", [SHORT, pytest.param(LONG, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_labels_ids_and_missing_values_are_those_that_were_written(
    tmp_path: Path, name: str, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @example(columns=EXAMPLE)
    @given(columns=draw_columns())
    def check(columns: Columns) -> None:
        check_table(tmp_path / name, WRITERS[name], columns)

    check()


@pytest.mark.parametrize("examples", [SHORT, pytest.param(LONG, marks=pytest.mark.full)])
@pytest.mark.parametrize("tool", ["pandas", "polars", "pyarrow"])
def test_an_embeddings_file_keeps_them_too(tmp_path: Path, tool: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @example(columns=EXAMPLE)
    @given(columns=draw_columns())
    def check(columns: Columns) -> None:
        check_embeddings(tmp_path / "e.parquet", tool, columns)

    check()
