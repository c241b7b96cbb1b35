"""A column indexed for filters: which rows hold a value, or lie in a range."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from common.array_types import Int32s, Int64s, RowIndices

ColumnKind = Literal["text", "number", "boolean", "integer", "time"]
"""``integer``: whole numbers of 64 bits, some beyond 2^53; such a field holds no fractions.
``time``: dates and times, compared as nanoseconds since 1970 in UTC and written in ISO 8601."""


class FieldUse(NamedTuple):
    """The kind of a metadata field, and how many items have it."""

    kind: ColumnKind
    items: int


def describe_kind(kind: ColumnKind) -> str:
    """The kind with its article, for messages."""
    special = {
        "text": "text",
        "integer": "a whole number",
        "time": "a time, written as 2024-01-31 or 2024-01-31T12:00:00Z",
    }
    return special.get(kind, f"a {kind}")


def are_comparable(a: ColumnKind, b: ColumnKind) -> bool:
    """Whether values of the two kinds can be compared: any numbers can."""
    numbers = {"number", "integer"}
    return a == b or {a, b} <= numbers


class Column:
    """Codes into sorted distinct values; -1 where a row has none."""

    def __init__(self, kind: ColumnKind, values: Sequence[Any], codes: Int32s) -> None:
        self.kind = kind
        self._values = values
        self._codes = codes

    @cached_property
    def _rows_by_code(self) -> tuple[Int64s, Int64s]:
        """Rows by code, ascending within a code, and where each code starts; missing rows come first."""
        order = np.argsort(self._codes, kind="stable")
        starts = np.searchsorted(self._codes[order], np.arange(len(self._values) + 1))
        return order, starts

    def select_present(self) -> RowIndices:
        """Rows that have a value, ascending."""
        return np.flatnonzero(self._codes >= 0)

    def select_equal(self, value: Any) -> RowIndices:
        """Rows that hold a value, ascending."""
        code = bisect_left(self._values, value)
        if code == len(self._values) or self._values[code] != value:
            return np.empty(0, dtype=np.int64)
        order, starts = self._rows_by_code
        return order[starts[code] : starts[code + 1]]

    def select_among(self, values: Sequence[Any]) -> RowIndices:
        """Rows that hold one of several values, ascending."""
        parts = [self.select_equal(value) for value in set(values)]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def select_between(self, low: Any, high: Any, *, low_open: bool, high_open: bool) -> RowIndices:
        """Rows whose value lies between two bounds, ascending; None is no bound."""
        first, last = 0, len(self._values)
        if low is not None:
            first = (bisect_right if low_open else bisect_left)(self._values, low)
        if high is not None:
            last = (bisect_left if high_open else bisect_right)(self._values, high)
        order, starts = self._rows_by_code
        rows = order[starts[first] : starts[max(first, last)]]
        if len(rows) < len(order) // 16:
            return np.sort(rows)
        return np.flatnonzero((self._codes >= first) & (self._codes < last))
