"""The filter language: conditions over ``label`` and metadata, evaluated to row numbers.

``{"label": "7"}`` is short for ``{"label": {"$eq": "7"}}``; several keys of one object must all hold.
``$ne`` and ``$nin`` also hold for rows that lack the field; ``$not`` is the complement of its condition.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np

from common.array_types import RowIndices
from common.errors import InputError
from index.items.columns import Column, ColumnKind, describe_kind

COMPARISONS = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists")
ORDERED = ("$gt", "$gte", "$lt", "$lte")
JOINS = ("$and", "$or", "$not")
MAX_LEVELS = 64
SORT_UP_TO = 4_096  # rows; below, sorting two lists together is quicker than marking rows


class Table(Protocol):
    """The columns that a filter is evaluated on."""

    def __len__(self) -> int: ...

    @property
    def column_names(self) -> list[str]: ...

    def column(self, name: str) -> Column | None: ...


@dataclass(frozen=True)
class WidenedTable:
    """A table with further fields, of which none of its rows has a value."""

    table: Table
    fields: Mapping[str, ColumnKind]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def column_names(self) -> list[str]:
        """What a filter may name."""
        return sorted({*self.table.column_names, *self.fields})

    def column(self, name: str) -> Column | None:
        """The table's own column, or one in which every row lacks a value."""
        own = self.table.column(name)
        if own is None and name in self.fields:
            return Column(self.fields[name], [], np.full(len(self), -1, dtype=np.int32))
        return own


def select_rows(condition: Mapping[str, Any], table: Table, level: int = 0) -> RowIndices:
    """Row numbers for which a filter holds, int64, ascending.

    Raises:
        InputError: an unknown operator or field, or a value whose type the field does not have.
    """
    if not isinstance(condition, Mapping):
        raise InputError(f"filter: a condition must be an object, found {condition!r:.60}.")
    if level > MAX_LEVELS:
        raise InputError(f"filter: nested deeper than {MAX_LEVELS} levels.")
    parts = [_select_by_key(key, operand, table, level) for key, operand in condition.items()]
    if len(parts) == 1:
        return parts[0]
    return reduce(_intersect, sorted(parts, key=len)) if parts else np.arange(len(table))


def _select_by_key(name: str, operand: Any, table: Table, level: int) -> RowIndices:
    if name in ("$and", "$or"):
        if not isinstance(operand, Sequence) or isinstance(operand, str) or not operand:
            raise InputError(f"filter: {name} takes a non-empty list of conditions, found {operand!r:.60}.")
        parts = [select_rows(part, table, level + 1) for part in operand]
        if name == "$and":
            return reduce(_intersect, sorted(parts, key=len))
        return reduce(np.union1d, parts)
    if name == "$not":
        return _complement(select_rows(operand, table, level + 1), len(table))
    if name.startswith("$"):
        raise InputError(f"filter: '{name}' is no operator; the joins are {', '.join(JOINS)}.")
    if not isinstance(operand, Mapping):
        return _select_compared(name, "$eq", operand, table)
    comparisons = operand
    if not comparisons:
        raise InputError(f"filter: '{name}' is given no comparison; use one of {', '.join(COMPARISONS)}.")
    bounds = {how: value for how, value in comparisons.items() if how in ORDERED}
    parts = [
        _select_compared(name, how, value, table) for how, value in comparisons.items() if how not in ORDERED
    ]
    if bounds:
        parts.append(_select_between(name, bounds, table))
    return reduce(_intersect, parts)


def _select_between(name: str, bounds: Mapping[str, Any], table: Table) -> RowIndices:
    column = _find_column(name, table)
    lows = [
        (_check_value(name, column, bounds[how], how), how == "$gt")
        for how in ("$gt", "$gte")
        if how in bounds
    ]
    highs = [
        (_check_value(name, column, bounds[how], how), how != "$lt")
        for how in ("$lt", "$lte")
        if how in bounds
    ]
    low, low_open = max(lows, default=(None, False))
    high, high_closed = min(highs, default=(None, True))
    return column.between(low, high, low_open=low_open, high_open=not high_closed)


def _select_compared(name: str, how: str, value: Any, table: Table) -> RowIndices:
    if how not in COMPARISONS:
        near = difflib.get_close_matches(how, COMPARISONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(COMPARISONS)}"
        raise InputError(f"filter: '{how}' on '{name}' is no comparison: {hint}.")
    column = table.column(name)
    n = len(table)
    if how == "$exists":
        if not isinstance(value, bool):
            raise InputError(f"filter: $exists on '{name}' takes true or false, found {value!r:.60}.")
        present = np.empty(0, dtype=np.int64) if column is None else column.present()
        return present if value else _complement(present, n)
    column = _find_column(name, table)
    if how in ("$in", "$nin"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"filter: {how} on '{name}' takes a list, found {value!r:.60}.")
        among = column.among([_check_value(name, column, member, how) for member in value])
        return among if how == "$in" else _complement(among, n)
    wanted = _check_value(name, column, value, how)
    if how == "$eq":
        return column.equal(wanted)
    return _complement(column.equal(wanted), n)


def _find_column(name: str, table: Table) -> Column:
    column = table.column(name)
    if column is None:
        raise InputError(f"filter: no item has a field '{name}'; there are {', '.join(table.column_names)}.")
    return column


def _check_value(name: str, column: Column, value: Any, how: str) -> Any:
    ordered = how in ORDERED
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "label" and isinstance(value, int) and number and not ordered:
        return str(value)
    if column.kind == "text":
        fits = isinstance(value, str)
    elif column.kind == "number":
        fits = number and math.isfinite(value)
    else:
        fits = isinstance(value, bool) and not ordered
    if not fits:
        raise InputError(
            f"filter: {how} on '{name}' is given {value!r:.60}, but '{name}' is {describe_kind(column.kind)}."
        )
    return value


def _intersect(a: RowIndices, b: RowIndices) -> RowIndices:
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if len(many) < SORT_UP_TO:
        return np.intersect1d(few, many, assume_unique=True)
    inside = np.zeros(int(many[-1]) + 1, dtype=bool)
    inside[many] = True
    within = few[few < len(inside)]
    return within[inside[within]]


def _complement(rows: RowIndices, n: int) -> RowIndices:
    left = np.ones(n, dtype=bool)
    left[rows] = False
    return np.flatnonzero(left)
