"""A column indexed for filters: which rows hold a value, or lie in a range."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from common.array_types import Bools, Int32s, Int64s, RowIndices

ColumnKind = Literal["text", "number", "boolean", "integer", "time", "texts", "numbers", "integers", "list"]
"""``integer``: whole numbers of 64 bits, some beyond 2^53; such a field holds no fractions.
``time``: dates and times, compared as nanoseconds since 1970 in UTC and written in ISO 8601.
``texts``, ``numbers``, ``integers``: lists of text, of numbers, of whole numbers with some beyond 2^53.
``list``: lists of which none has held a value yet, so that these may be of any kind."""

LIST_KINDS: Mapping[ColumnKind, ColumnKind] = {"text": "texts", "number": "numbers", "integer": "integers"}
"""The kind of lists by that of their values."""


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
        "texts": "a list of texts",
        "numbers": "a list of numbers",
        "integers": "a list of whole numbers",
    }
    return special.get(kind, f"a {kind}")


def are_comparable(a: ColumnKind, b: ColumnKind) -> bool:
    """Whether values of the two kinds can be compared: any numbers can, and lists without values with all."""
    alike = [{"number", "integer"}, {"numbers", "integers", "list"}, {"texts", "list"}]
    return a == b or any({a, b} <= kinds for kinds in alike)


def is_list_kind(kind: ColumnKind) -> bool:
    """Whether values of the kind are lists."""
    return kind == "list" or kind in LIST_KINDS.values()


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


class ListColumn:
    """Lists indexed by their values: which rows have one that holds a value.

    Args:
        kind: of the field.
        present: bool [n], rows that have a list.
        values: what lists hold; two may be equal, as 0.0 and -0.0 are.
        codes: int64 [m], the position in ``values`` of each value of each list.
        rows: int64 [m], the row of each.
    """

    def __init__(
        self, kind: ColumnKind, present: Bools, values: Sequence[Any], codes: Int64s, rows: Int64s
    ) -> None:
        self.kind = kind
        self._present = present
        self._code_of: dict[Any, int] = {}
        code_of_value = [self._code_of.setdefault(value, len(self._code_of)) for value in values]
        codes = np.array(code_of_value, dtype=np.int64)[codes]
        pairs = np.unique(codes * len(present) + rows)  # a list may hold a value twice
        self._rows = pairs % max(len(present), 1)
        self._starts = np.searchsorted(pairs, np.arange(len(self._code_of) + 1) * len(present))

    def select_present(self) -> RowIndices:
        """Rows that have a list, perhaps an empty one, ascending."""
        return np.flatnonzero(self._present)

    def select_containing(self, value: Any) -> RowIndices:
        """Rows whose list holds a value, ascending."""
        code = self._code_of.get(value)
        if code is None:
            return np.empty(0, dtype=np.int64)
        return self._rows[self._starts[code] : self._starts[code + 1]]


def build_empty_column(kind: ColumnKind, n: int) -> Column | ListColumn:
    """A column of n rows of which none has a value."""
    if not is_list_kind(kind):
        return Column(kind, [], np.full(n, -1, dtype=np.int32))
    none = np.empty(0, dtype=np.int64)
    return ListColumn(kind, np.zeros(n, dtype=np.bool_), [], none, none)
