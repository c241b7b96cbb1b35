"""The filter language: conditions over ``label`` and metadata, evaluated to row numbers.

``{"label": "7"}`` is short for ``{"label": {"$eq": "7"}}``; several keys of one object must all hold.
``$ne`` and ``$nin`` also hold for rows that lack the field; ``$not`` is the complement of its condition.
A field of lists takes ``$contains``, which holds where the list has a value, and ``$exists`` alone.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from common.array_types import RowIndices
from common.errors import InputError
from common.time_budget import check_time
from embeddings.instants import parse_instant
from index.items.columns import (
    Column,
    ColumnKind,
    ListColumn,
    are_comparable,
    build_empty_column,
    describe_kind,
)
from index.items.item_table import ItemTable
from index.items.metadata import describe_value, name_some

COMPARISONS = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists", "$contains")
ORDERED = ("$gt", "$gte", "$lt", "$lte")
JOINS = ("$and", "$or", "$not")
MAX_LEVELS = 64
SORT_UP_TO = 4_096  # rows; below, sorting two lists together is quicker than marking rows


def select_rows(
    condition: Mapping[str, Any], items: ItemTable, fields: Mapping[str, ColumnKind] | None = None
) -> RowIndices:
    """Row numbers for which a filter holds, int64, ascending; no row has a value of the further fields.

    Raises InputError for an unknown operator or field, or a value whose type the field does not have.
    """
    return _Filter(items, fields or {}).select(condition)


@dataclass(frozen=True)
class _Filter:
    items: ItemTable
    fields: Mapping[str, ColumnKind]

    def select(self, condition: Mapping[str, Any], level: int = 0) -> RowIndices:
        if not isinstance(condition, Mapping):
            raise InputError(f"filter: a condition must be an object, found {describe_value(condition)}.")
        if level > MAX_LEVELS:
            raise InputError(f"filter: nested deeper than {MAX_LEVELS} levels.")
        parts = [self._select_by_key(key, operand, level) for key, operand in condition.items()]
        return _intersect_all(parts) if parts else np.arange(len(self.items))

    def _select_by_key(self, name: str, operand: Any, level: int) -> RowIndices:
        check_time()
        if name in ("$and", "$or"):
            if not isinstance(operand, Sequence) or isinstance(operand, str) or not operand:
                raise InputError(
                    f"filter: {name} takes a non-empty list of conditions, found {describe_value(operand)}."
                )
            parts = [self.select(part, level + 1) for part in operand]
            return _intersect_all(parts) if name == "$and" else self._unite(parts)
        if name == "$not":
            return self._select_complement(self.select(operand, level + 1))
        if name.startswith("$"):
            raise InputError(f"filter: '{name}' is no operator; the joins are {', '.join(JOINS)}.")
        if not isinstance(operand, Mapping):
            return self._select_compared(name, "$eq", operand)
        if not operand:
            raise InputError(f"filter: '{name}' is given no comparison; use one of {', '.join(COMPARISONS)}.")
        bounds = {how: value for how, value in operand.items() if how in ORDERED}
        parts = [
            self._select_compared(name, how, value) for how, value in operand.items() if how not in ORDERED
        ]
        if bounds:
            parts.append(self._select_between(name, bounds))
        return _intersect_all(parts)

    def _select_between(self, name: str, bounds: Mapping[str, Any]) -> RowIndices:
        column = self._find_scalars(name, next(iter(bounds)))

        def check(given: tuple[str, str], marked: str) -> list[tuple[Any, bool]]:
            # of equal bounds the marked one counts
            hows = [how for how in given if how in bounds]
            return [(_check_value(name, column.kind, bounds[how], how), how == marked) for how in hows]

        low, low_open = max(check(("$gt", "$gte"), "$gt"), default=(None, False))
        high, high_closed = min(check(("$lt", "$lte"), "$lte"), default=(None, True))
        return column.select_between(low, high, low_open=low_open, high_open=not high_closed)

    def _select_compared(self, name: str, how: str, value: Any) -> RowIndices:
        if how not in COMPARISONS:
            near = difflib.get_close_matches(how, COMPARISONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(COMPARISONS)}"
            raise InputError(f"filter: '{how}' on '{name}' is no comparison: {hint}.")
        if how == "$exists":
            if not isinstance(value, bool):
                raise InputError(
                    f"filter: $exists on '{name}' takes true or false, found {describe_value(value)}."
                )
            column = self._get_column(name)
            present = np.empty(0, dtype=np.int64) if column is None else column.select_present()
            return present if value else self._select_complement(present)
        if how == "$contains":
            lists, kind = self._find_lists(name)
            return lists.select_containing(_check_value(name, kind, value, how))
        column = self._find_scalars(name, how)
        if how in ("$in", "$nin"):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise InputError(f"filter: {how} on '{name}' takes a list, found {describe_value(value)}.")
            rows = column.select_among([_check_value(name, column.kind, member, how) for member in value])
        else:
            rows = column.select_equal(_check_value(name, column.kind, value, how))
        return rows if how in ("$eq", "$in") else self._select_complement(rows)

    def _get_column(self, name: str) -> Column | ListColumn | None:
        column, kind = self.items.get_column(name), self.fields.get(name)
        # a field that was forgotten with its last item may have come back as another kind
        if kind is not None and (column is None or not are_comparable(column.kind, kind)):
            return build_empty_column(kind, len(self.items))
        return column

    def _find_scalars(self, name: str, how: str) -> Column:
        column = self._find_column(name)
        if isinstance(column, ListColumn):
            raise InputError(
                f"filter: {how} on '{name}' compares single values, but '{name}' is "
                f"{describe_kind(column.kind)}: use $contains or $exists."
            )
        return column

    def _find_lists(self, name: str) -> tuple[ListColumn, ColumnKind]:
        """A column of lists, and the kind of the field, whose lists here may all be empty."""
        column = self._find_column(name)
        if isinstance(column, Column):
            raise InputError(
                f"filter: $contains on '{name}' takes a field of lists, but '{name}' is "
                f"{describe_kind(column.kind)}: use $eq or $in."
            )
        return column, self.fields.get(name, column.kind)

    def _find_column(self, name: str) -> Column | ListColumn:
        column = self._get_column(name)
        if column is None:
            names = {*self.items.column_names, *self.fields}
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean '{near[0]:.60}'?" if near else f"there are {name_some(names)}."
            raise InputError(f"filter: no item has a field '{name:.60}'; {hint}")
        return column

    def _unite(self, parts: list[RowIndices]) -> RowIndices:
        if sum(map(len, parts)) < SORT_UP_TO:
            return reduce(np.union1d, parts)
        inside = np.zeros(len(self.items), dtype=bool)
        for part in parts:
            inside[part] = True
        return np.flatnonzero(inside)

    def _select_complement(self, rows: RowIndices) -> RowIndices:
        left = np.ones(len(self.items), dtype=bool)
        left[rows] = False
        return np.flatnonzero(left)


def _check_value(name: str, kind: ColumnKind, value: Any, how: str) -> Any:
    """A value to compare with, of a field's kind or in its lists; a time in nanoseconds."""
    ordered = how in ORDERED
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "label" and isinstance(value, int) and number and not ordered:
        return describe_value(value)
    if kind == "time":
        instant = parse_instant(value) if isinstance(value, str) else None
        if instant is not None:
            return instant
        fits = False
    elif kind in ("text", "texts"):
        fits = isinstance(value, str)
    elif kind == "list" and isinstance(value, str):
        fits = True
    elif kind in ("number", "integer", "numbers", "integers", "list"):
        # a whole number of any size is compared exactly
        fits = number and (isinstance(value, int) or math.isfinite(value))
    else:
        fits = isinstance(value, bool) and not ordered
    if not fits:
        raise InputError(
            f"filter: {how} on '{name}' is given {describe_value(value)}, but '{name}' is "
            f"{describe_kind(kind)}."
        )
    return value


def _intersect_all(parts: list[RowIndices]) -> RowIndices:
    return reduce(_intersect, sorted(parts, key=len))


def _intersect(a: RowIndices, b: RowIndices) -> RowIndices:
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if len(many) < SORT_UP_TO:
        return np.intersect1d(few, many, assume_unique=True)
    inside = np.zeros(int(many[-1]) + 1, dtype=bool)
    inside[many] = True
    within = few[few < len(inside)]
    return within[inside[within]]
