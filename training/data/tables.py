"""Columns of tables as the arrays that data kinds need: texts, numbers, ids."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.array_types import Float64s, Texts
from common.errors import InputError
from embeddings.arrow_columns import check_texts, convert_to_texts, is_number
from embeddings.tables import read_texts
from embeddings.written_columns import parse_floats


def read_text_column(table: pa.Table, name: str, path: Path) -> Texts:
    """A column of names, labels or ids as text [n] (integers as their digits).

    Raises:
        InputError: a value that is missing, empty or so long that the array would be huge; names the row.
    """
    return convert_to_texts(_read_texts(table, name, path), f"column '{name}'", str(path))


def read_labels(table: pa.Table, name: str, path: Path, is_needed: bool = True) -> Texts:
    """The column of labels; empty texts where there is none and none is needed."""
    if not is_needed and name not in table.column_names:
        return np.full(table.num_rows, "", dtype=np.str_)
    return read_text_column(table, name, path)


def read_long_texts(table: pa.Table, name: str, path: Path) -> NDArray[np.object_]:
    """A column as text objects [n], each taking the room of its own length; see ``read_text_column``."""
    return np.array(read_checked_texts(table, name, path).to_pylist(), dtype=object)


def read_checked_texts(table: pa.Table, name: str, path: Path) -> Any:
    """A column as large_string [n]; see ``read_text_column``."""
    texts = _read_texts(table, name, path)
    check_texts(texts, f"column '{name}'", str(path))
    return texts


def read_numeric_columns(
    table: pa.Table, without: Collection[str], path: Path, first: int = 0
) -> tuple[Float64s, list[str]]:
    """All columns but the named ones, as float64 [n, columns], with their names.

    Args:
        first: number of the first row in error messages.

    Raises:
        InputError: a column that is not numeric, a missing or infinite value; names column and row.
    """
    names = [name for name in table.column_names if name not in without]
    if not names:
        raise InputError(f"{path} has no column of numbers besides {', '.join(sorted(without))}.")
    values = np.empty((table.num_rows, len(names)))
    for number, name in enumerate(names):
        column = parse_floats(table, name)
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise InputError(f"{path}: row {first + row} of column '{name}' has no value.")
        if not is_number(column.type):
            kind = "text" if pa.types.is_large_string(column.type) else column.type
            raise InputError(
                f"{path}: column '{name}' must hold numbers, found {kind}: write it as numbers, "
                "or leave it out."
            )
        values[:, number] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(~np.isfinite(values[:, number]))
        if len(bad):
            raise InputError(f"{path}: row {first + bad[0]} of column '{name}' is {values[bad[0], number]}.")
    return values, names


def read_ids(table: pa.Table, path: Path) -> Texts:
    """The column ``id``, or row numbers where there is none."""
    has_ids = "id" in table.column_names
    return read_text_column(table, "id", path) if has_ids else build_row_ids(table.num_rows)


def build_row_ids(n: int) -> Texts:
    """Row numbers as ids."""
    return np.arange(n).astype(f"<U{len(str(max(0, n - 1)))}")


def _read_texts(table: pa.Table, name: str, path: Path) -> Any:
    if name not in table.column_names:
        raise InputError(f"{path} has no column '{name}'; found {', '.join(table.column_names)}.")
    return read_texts(table, name, path)
