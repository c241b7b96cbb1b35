"""CSV, Parquet and JSON Lines: tables of numbers, and lists of images or texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from api_schemas.errors import InputError
from decision.embeddings import Text

LISTS = frozenset((".csv", ".parquet"))


def read_table(path: Path) -> pa.Table:
    """Read a whole table; raises InputError naming a file that is missing, damaged, empty or no table."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a table ending in .csv, .parquet or .jsonl.")
    try:
        if path.suffix == ".csv":
            table = pyarrow.csv.read_csv(path)
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
        elif path.suffix == ".jsonl":
            table = pyarrow.json.read_json(path)
        else:
            raise InputError(f"{path} ends in '{path.suffix}': tables end in .csv, .parquet or .jsonl.")
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}.") from None
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.")
    return table


def text_column(table: pa.Table, name: str, path: Path) -> NDArray[np.str_]:
    """A column as text [n] (integers as their digits); raises InputError naming a missing value's row."""
    column = _column(table, name, path)
    if pa.types.is_floating(column.type):
        raise InputError(f"{path}: column '{name}' must hold text or integers, found {column.type}.")
    return np.array(pc.cast(column, pa.string()).to_pylist(), dtype=np.str_)


def numeric_columns(
    table: pa.Table, without: Collection[str], path: Path
) -> tuple[NDArray[np.float64], list[str]]:
    """All columns but the named ones, as float64 [n, columns], with their names.

    Raises:
        InputError: a column that is not numeric, a missing or infinite value; names column and row.
    """
    names = [name for name in table.column_names if name not in without]
    if not names:
        raise InputError(f"{path} has no column of numbers besides {', '.join(sorted(without))}.")
    values = np.empty((table.num_rows, len(names)))
    for number, name in enumerate(names):
        column = _column(table, name, path)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(f"{path}: column '{name}' must hold numbers, found {column.type}.")
        values[:, number] = column.to_numpy()
        bad = np.flatnonzero(~np.isfinite(values[:, number]))
        if len(bad):
            raise InputError(f"{path}: row {bad[0]} of column '{name}' is {values[bad[0], number]}.")
    return values, names


def other_columns(table: pa.Table, without: Collection[str]) -> dict[str, NDArray[Any]]:
    """Every column that can be metadata: text, numbers or dates, by name; others are left out."""
    found: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        kind = table.column(name).type
        if name in without or pa.types.is_nested(kind):
            continue
        values = table.column(name).to_numpy()
        found[name] = values.astype(np.str_) if values.dtype == object else values
    return found


def standardisation(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each column; a column that does not vary keeps its scale."""
    deviations = values.std(axis=0)
    return values.mean(axis=0).tolist(), np.where(deviations > 0, deviations, 1.0).tolist()


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(f"{path} has no column '{name}'; found {', '.join(table.column_names)}.")
    column = table.column(name)
    if column.null_count:
        row = int(np.flatnonzero(pc.is_null(column).to_numpy())[0])
        raise InputError(f"{path}: row {row} of column '{name}' has no value.")
    return column


def joined(tables: Sequence[pa.Table], paths: Sequence[Path]) -> pa.Table:
    """Several files of one table, one after the other; raises InputError when their columns differ."""
    for table, path in zip(tables, paths, strict=True):
        if set(table.column_names) != set(tables[0].column_names):
            raise InputError(f"{path} has other columns than {paths[0]}.")
    return pa.concat_tables(
        [table.select(tables[0].column_names) for table in tables], promote_options="default"
    )


def numbered(n: int) -> Text:
    """Row numbers as ids, where a table has none."""
    return np.arange(n).astype(np.str_)
