"""Columns that are read a few rows at a time: for the hits of a search, not for a scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.array_types import Bools, RowIndices
from embeddings.arrow_columns import MetadataValue, is_text, list_values

TakeValues = Callable[[RowIndices], list[MetadataValue]]
"""The values of rows, int64 [m], as JSON has them; None for missing."""


class TextColumn:
    """Many short texts, kept as one buffer: a list of Python strings would take several times the memory."""

    def __init__(self, texts: pa.Array) -> None:
        self.array = texts.cast(pa.large_string())
        offsets, data = self.array.buffers()[1:]
        start = self.array.offset
        self._offsets = np.frombuffer(offsets, dtype=np.int64)[start : start + len(self.array) + 1]
        self._data = memoryview(data) if data is not None else memoryview(b"")

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._offsets[row] : self._offsets[row + 1]], "utf-8")

    def take(self, rows: RowIndices) -> list[str]:
        """The texts of rows, int64 [m]."""
        data = self._data
        starts, ends = self._offsets[rows].tolist(), self._offsets[rows + 1].tolist()
        return [str(data[start:end], "utf-8") for start, end in zip(starts, ends, strict=True)]


def build_take(column: pa.ChunkedArray) -> TakeValues:
    """What reads rows of a metadata column.

    Texts, numbers and truth values are read from the column's own buffers, where Arrow's ``take`` of ten rows
    takes a hundred times as long.
    """
    if column.null_count == len(column):
        return lambda rows: [None] * len(rows)
    take = _build_take_of_present(column)
    if take is None:
        return lambda rows: list_values(column.take(pa.array(rows)))
    if not column.null_count:
        return take
    return _leave_out_missing(take, column.is_valid().to_numpy())


def _build_take_of_present(column: pa.ChunkedArray) -> Callable[[RowIndices], list[Any]] | None:
    """What reads rows that are not missing; None for dates, times, lists and columns in several pieces."""
    kind = column.type
    if column.num_chunks != 1:
        return None
    array = column.chunk(0)
    if is_text(kind):
        return TextColumn(array).take
    if pa.types.is_boolean(kind):
        values = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind):
        values = np.frombuffer(array.buffers()[1], kind.to_pandas_dtype())[array.offset :][: len(array)]
    else:
        return None
    return lambda rows: values[rows].tolist()


def _leave_out_missing(take: Callable[[RowIndices], list[Any]], present: Bools) -> TakeValues:
    """The same with None for rows that are not ``present``, bool [n]."""

    def take_with_missing(rows: RowIndices) -> list[MetadataValue]:
        here = present[rows]
        values = iter(take(rows[here]))
        return [next(values) if is_here else None for is_here in here.tolist()]

    return take_with_missing
