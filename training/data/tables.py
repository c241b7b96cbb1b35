"""Tables in CSV, Parquet and JSON Lines, and their columns as arrays."""

from __future__ import annotations

import os
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

from common.array_types import Float64s, Texts
from common.errors import InputError

LIST_SUFFIXES = frozenset((".csv", ".parquet"))
BYTES_PER_CHARACTER = 4
MAX_METADATA_CHARS = 1_000  # no label, id or value of metadata that is shorter is refused
MAX_COLUMN_BYTES = 256 << 20  # of a column with values that are longer
TAIL_BYTES = 1_024  # bytes of a file, in which the last that is no space is looked for


def read_table(path: Path, texts: Collection[str] = ()) -> pa.Table:
    """Read a whole table.

    Args:
        texts: columns whose integers are text, in a CSV as they are written: 01 is another label than 1.

    Raises:
        InputError: a file that is missing, damaged, empty or no table, or decimals in a column of ``texts``.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}: expected a table ending in .csv, .parquet or .jsonl.")
    try:
        if path.suffix == ".csv":
            # without newlines_in_values a block of the file may end in the middle of a text
            table = pyarrow.csv.read_csv(
                path,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string())),
            )
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
        elif path.suffix == ".jsonl":
            table = pyarrow.json.read_json(path)
        else:
            raise InputError(f"{path} ends in '{path.suffix}': tables end in .csv, .parquet or .jsonl.")
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        if "straddling" in str(error):
            raise InputError(
                f"{path} has a row of more than 1 MiB: close a quote that is left open, or write the table "
                "as .parquet."
            ) from None
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}.") from None
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.")
    if path.suffix == ".csv" and _has_open_quote(table, path):
        raise InputError(
            f"{path}: row {table.num_rows - 1} opens a quote that nothing closes, so that all rows after it "
            "are one text: close it."
        )
    for position, name in enumerate(table.column_names):
        if name in table.column_names[:position]:
            raise InputError(f"{path} has two columns '{name}': rename one.")
        if name not in texts:
            continue
        column = table.column(name)
        if path.suffix == ".csv":
            table = table.set_column(position, name, _read_verbatim(column, name, path))
        elif pa.types.is_integer(column.type):
            table = table.set_column(position, name, pc.cast(column, pa.string()))
    return table


def _has_open_quote(table: pa.Table, path: Path) -> bool:
    """Whether the last text has line breaks, as only quoted ones have, and no quote ends it."""
    last = table.column(table.num_columns - 1)[-1].as_py()
    if not isinstance(last, str) or "\n" not in last:
        return False
    with path.open("rb") as file:
        file.seek(-min(TAIL_BYTES, path.stat().st_size), os.SEEK_END)
        written = file.read().rstrip()
    return bool(written) and not written.endswith(b'"')


def _read_verbatim(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """A column of a CSV, of integers without the spaces around them; raises InputError for decimals."""
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        return column
    if not pc.all(pc.match_substring_regex(trimmed, r"^[+-]?[0-9]+$")).as_py():
        raise InputError(f"{path}: column '{name}' must hold text or integers, found double.")
    return trimmed


def read_text_column(table: pa.Table, name: str, path: Path) -> Texts:
    """A column of names, labels or ids as text [n] (integers as their digits).

    Raises:
        InputError: a value that is missing, empty or so long that the array would be huge; names the row.
    """
    return _convert_to_fixed_width(read_long_texts(table, name, path).tolist(), name, path)


def read_long_texts(table: pa.Table, name: str, path: Path) -> NDArray[np.object_]:
    """A column as text objects [n], each taking the room of its own length; see ``read_text_column``."""
    column = _read_column(table, name, path)
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        raise InputError(f"{path}: column '{name}' must hold text or integers, found {column.type}.")
    try:
        texts = pc.cast(column, pa.string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError):
        raise _build_utf8_error(name, path) from None
    empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise InputError(f"{path}: row {empty} of column '{name}' is empty.")
    return np.array(texts, dtype=object)


def _build_utf8_error(name: str, path: Path) -> InputError:
    return InputError(f"{path}: column '{name}' holds text that is not valid UTF-8: write it again.")


def _convert_to_fixed_width(texts: list[str], name: str, path: Path) -> Texts:
    """As a numpy array, in which every row takes the room of the longest."""
    row = max(range(len(texts)), key=lambda row: len(texts[row]))
    longest = len(texts[row])
    if longest > MAX_METADATA_CHARS and longest * len(texts) * BYTES_PER_CHARACTER > MAX_COLUMN_BYTES:
        raise InputError(
            f"{path}: row {row} of column '{name}' has {longest} characters, and each of {len(texts)} rows "
            "takes the room of the longest: shorten it, or leave the column out."
        )
    return np.array(texts, dtype=np.str_)


def read_numeric_columns(table: pa.Table, without: Collection[str], path: Path) -> tuple[Float64s, list[str]]:
    """All columns but the named ones, as float64 [n, columns], with their names.

    Raises:
        InputError: a column that is not numeric, a missing or infinite value; names column and row.
    """
    names = [name for name in table.column_names if name not in without]
    if not names:
        raise InputError(f"{path} has no column of numbers besides {', '.join(sorted(without))}.")
    values = np.empty((table.num_rows, len(names)))
    for number, name in enumerate(names):
        column = _read_column(table, name, path)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(
                f"{path}: column '{name}' must hold numbers, found {column.type}: write it as numbers, or "
                "leave it out."
            )
        values[:, number] = column.to_numpy()
        bad = np.flatnonzero(~np.isfinite(values[:, number]))
        if len(bad):
            raise InputError(f"{path}: row {bad[0]} of column '{name}' is {values[bad[0], number]}.")
    return values, names


def read_metadata(table: pa.Table, without: Collection[str], path: Path) -> dict[str, NDArray[Any]]:
    """Every column that can be metadata: text, numbers or dates, by name; others are left out.

    Missing text is empty. Raises InputError for a text so long that the array would be huge; names the row.
    """
    metadata: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        column = table.column(name)
        if name in without or pa.types.is_nested(column.type):
            continue
        if pa.types.is_dictionary(column.type):  # whose missing values to_numpy() makes up
            column = column.cast(column.type.value_type)
        try:
            values = column.to_numpy()
        except (pa.ArrowException, UnicodeDecodeError):
            raise _build_utf8_error(name, path) from None
        if values.dtype == object:
            values = _convert_to_fixed_width(
                ["" if value is None else str(value) for value in values], name, path
            )
        metadata[name] = values
    return metadata


def _read_column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(f"{path} has no column '{name}'; found {', '.join(table.column_names)}.")
    column = table.column(name)
    if column.null_count:
        row = int(np.flatnonzero(pc.is_null(column).to_numpy())[0])
        raise InputError(f"{path}: row {row} of column '{name}' has no value.")
    return column


def read_tables(paths: Sequence[Path], texts: Collection[str]) -> pa.Table:
    """Several files of one table, one after the other; raises InputError when their columns differ."""
    tables = [read_table(path, texts) for path in paths]
    for table, path in zip(tables, paths, strict=True):
        if set(table.column_names) != set(tables[0].column_names):
            raise InputError(f"{path} has other columns than {paths[0]}.")
        try:  # whole numbers in one file and decimals in another are decimals
            pa.unify_schemas([tables[0].schema, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise InputError(f"{path} does not fit {paths[0]}: {str(error).splitlines()[0]}.") from None
    return pa.concat_tables(
        [table.select(tables[0].column_names) for table in tables], promote_options="permissive"
    )


def read_ids(table: pa.Table, path: Path) -> Texts:
    """The column ``id``, or row numbers where there is none."""
    has_ids = "id" in table.column_names
    return read_text_column(table, "id", path) if has_ids else build_row_ids(table.num_rows)


def build_row_ids(n: int) -> Texts:
    """Row numbers as ids."""
    return np.arange(n).astype(np.str_)
