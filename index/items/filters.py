"""The filter language: conditions over ``label`` and metadata, checked once, answered as row numbers.

``{"label": "7"}`` is short for ``{"label": {"$eq": "7"}}``; several keys beside each other must all hold.
``$ne`` and ``$nin`` also hold for rows that lack the field; ``$not`` is what its condition leaves over.
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
from index.items.columns import Column, ColumnKind

COMPARISONS = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists")
ORDERED = ("$gt", "$gte", "$lt", "$lte")
JOINS = ("$and", "$or", "$not")
MOST_LEVELS = 64
FEW_ROWS = 4_096  # below, sorting two lists together is quicker than marking rows


class Table(Protocol):
    """What a filter is asked of."""

    def __len__(self) -> int: ...

    @property
    def column_names(self) -> list[str]: ...

    def column(self, name: str) -> Column | None: ...


@dataclass(frozen=True)
class Widened:
    """A table together with fields that none of its rows has but others do."""

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


def matching_rows(condition: Mapping[str, Any], table: Table, level: int = 0) -> RowIndices:
    """Row numbers for which a filter holds, int64, ascending.

    Raises:
        InputError: an unknown operator or field, or a value whose type the field does not have.
    """
    if not isinstance(condition, Mapping):
        raise InputError(f"filter: a condition must be an object, found {condition!r:.60}.")
    if level > MOST_LEVELS:
        raise InputError(f"filter: nested deeper than {MOST_LEVELS} levels.")
    parts = [_one(name, asked, table, level) for name, asked in condition.items()]
    if len(parts) == 1:
        return parts[0]
    return reduce(_both, sorted(parts, key=len)) if parts else np.arange(len(table))


def _one(name: str, asked: Any, table: Table, level: int) -> RowIndices:
    if name in ("$and", "$or"):
        if not isinstance(asked, Sequence) or isinstance(asked, str) or not asked:
            raise InputError(f"filter: {name} takes a non-empty list of conditions, found {asked!r:.60}.")
        parts = [matching_rows(part, table, level + 1) for part in asked]
        if name == "$and":
            return reduce(_both, sorted(parts, key=len))
        return reduce(np.union1d, parts)
    if name == "$not":
        return _rest(matching_rows(asked, table, level + 1), len(table))
    if name.startswith("$"):
        raise InputError(f"filter: '{name}' is no operator here; the joins are {', '.join(JOINS)}.")
    if not isinstance(asked, Mapping):
        return _compare(name, "$eq", asked, table)
    comparisons = asked
    if not comparisons:
        raise InputError(f"filter: '{name}' is given no comparison; use one of {', '.join(COMPARISONS)}.")
    bounds = {how: value for how, value in comparisons.items() if how in ORDERED}
    parts = [_compare(name, how, value, table) for how, value in comparisons.items() if how not in ORDERED]
    if bounds:
        parts.append(_between(name, bounds, table))
    return reduce(_both, parts)


def _between(name: str, bounds: Mapping[str, Any], table: Table) -> RowIndices:
    column = _known(name, table)
    lows = [
        (_fitting(name, column, bounds[how], how), how == "$gt") for how in ("$gt", "$gte") if how in bounds
    ]
    highs = [
        (_fitting(name, column, bounds[how], how), how != "$lt") for how in ("$lt", "$lte") if how in bounds
    ]
    low, low_open = max(lows, default=(None, False))
    high, high_closed = min(highs, default=(None, True))
    return column.between(low, high, low_open=low_open, high_open=not high_closed)


def _compare(name: str, how: str, value: Any, table: Table) -> RowIndices:
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
        return present if value else _rest(present, n)
    column = _known(name, table)
    if how in ("$in", "$nin"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"filter: {how} on '{name}' takes a list, found {value!r:.60}.")
        among = column.among([_fitting(name, column, one, how) for one in value])
        return among if how == "$in" else _rest(among, n)
    wanted = _fitting(name, column, value, how)
    if how == "$eq":
        return column.equal(wanted)
    return _rest(column.equal(wanted), n)


def _known(name: str, table: Table) -> Column:
    column = table.column(name)
    if column is None:
        raise InputError(f"filter: no item has a field '{name}'; there are {', '.join(table.column_names)}.")
    return column


def _fitting(name: str, column: Column, value: Any, how: str) -> Any:
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
            f"filter: {how} on '{name}' is given {value!r:.60}, but '{name}' is "
            f"{'text' if column.kind == 'text' else f'a {column.kind}'}."
        )
    return value


def _both(a: RowIndices, b: RowIndices) -> RowIndices:
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if len(many) < FEW_ROWS:
        return np.intersect1d(few, many, assume_unique=True)
    inside = np.zeros(int(many[-1]) + 1, dtype=bool)
    inside[many] = True
    within = few[few < len(inside)]
    return within[inside[within]]


def _rest(rows: RowIndices, n: int) -> RowIndices:
    left = np.ones(n, dtype=bool)
    left[rows] = False
    return np.flatnonzero(left)
