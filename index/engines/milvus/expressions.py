"""Filters as Milvus expressions: each holds for every node that the filter holds for, and perhaps for more.

What Milvus returns is checked against the filter's own rows afterwards, so that an expression need not be
exact: a comparison that Milvus cannot make is left out, and nodes that several rows share always pass.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from embeddings.instants import parse_instant

SHARED = "shared"  # the field of nodes that the fields below say nothing about
LABEL = "label"
METADATA = "item"
NOTHING = "node < 0"
LISTED_UP_TO = 64  # values that are compared one by one, which every version can do
MOST_CERTAIN = 2**53  # whole numbers up to here are the same as float64
_PLAIN_NAME = re.compile(r"[^\"'\\\[\]{}\x00-\x1f]+")
_COMPLEMENTS = {"$eq": "$ne", "$ne": "$eq", "$in": "$nin", "$nin": "$in"}
_SIGNS = {"$eq": "==", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPPOSITES = {"$gt": "<=", "$gte": "<", "$lt": ">=", "$lte": ">"}

Expression = str | None
"""None holds for all."""


def compile_filter(condition: Mapping[str, Any] | None, times: frozenset[str]) -> str:
    """A filter that ``select_rows`` takes as an expression; "" holds for all.

    Args:
        times: metadata fields that are kept as nanoseconds since 1970.
    """
    expression = None if condition is None else _compile(condition, times, negated=False)
    return "" if expression is None else f"{SHARED} == true or ({expression})"


def _compile(condition: Mapping[str, Any], times: frozenset[str], *, negated: bool) -> Expression:
    parts = [_compile_key(key, operand, times, negated) for key, operand in condition.items()]
    return _any(parts) if negated else _all(parts)


def _compile_key(key: str, operand: Any, times: frozenset[str], negated: bool) -> Expression:
    if key == "$not":
        return _compile(operand, times, negated=not negated)
    if key in ("$and", "$or"):
        parts = [_compile(part, times, negated=negated) for part in operand]
        return _all(parts) if (key == "$and") != negated else _any(parts)
    comparisons = operand if isinstance(operand, Mapping) else {"$eq": operand}
    parts = [_compare(key, how, value, times, negated) for how, value in comparisons.items()]
    return _any(parts) if negated else _all(parts)


def _compare(name: str, how: str, value: Any, times: frozenset[str], negated: bool) -> Expression:
    if not _PLAIN_NAME.fullmatch(name):
        return None
    field = LABEL if name == LABEL else f'{METADATA}["{name}"]'
    missing = None if name == LABEL else f"not exists {field}"
    if how == "$exists":
        if missing is None:
            return None if value != negated else NOTHING
        return f"exists {field}" if value != negated else missing
    if how == "$contains":
        held = _compile_contains(field, value)
        return held if held is None or not negated else _or_missing(f"not {held}", missing)
    if how in _OPPOSITES:
        written = _write(name, value, times)
        if written is None:
            return None
        if not negated:
            return f"{field} {_SIGNS[how]} {written}"
        return _or_missing(f"{field} {_OPPOSITES[how]} {written}", missing)
    if how not in _COMPLEMENTS:
        return None
    how = _COMPLEMENTS[how] if negated else how
    values = value if how in ("$in", "$nin") and isinstance(value, Sequence) else [value]
    listed = [_write(name, one, times) for one in values]
    if None in listed:
        return None
    written_values = [one for one in listed if one is not None]
    if how in ("$eq", "$in"):
        return _compile_list(field, written_values, wanted=True)
    return _or_missing(_compile_list(field, written_values, wanted=False), missing)


def _compile_list(field: str, values: list[str], *, wanted: bool) -> Expression:
    """Whether the field has one of the values, or none of them."""
    if not values:
        return NOTHING if wanted else None
    if len(values) > (1 if field == LABEL else LISTED_UP_TO):
        return f"{field} {'in' if wanted else 'not in'} [{', '.join(values)}]"
    if wanted:
        return _any([f"{field} == {value}" for value in values])
    return _all([f"{field} != {value}" for value in values])


def _compile_contains(field: str, value: Any) -> Expression:
    """Whether a list holds a value; a whole number is looked for with and without a point."""
    written = _write("", value, frozenset())
    if written is None:
        return None
    if isinstance(value, str):
        return f"json_contains({field}, {written})"
    spellings = dict.fromkeys(
        [written, repr(float(value))] + ([str(int(value))] if value == int(value) else [])
    )
    return f"json_contains_any({field}, [{', '.join(spellings)}])"


def _write(name: str, value: Any, times: frozenset[str]) -> str | None:
    """A value as Milvus reads it; None for one that it might compare differently."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == LABEL and isinstance(value, int):
        value = str(value)
    elif name in times:
        instant = parse_instant(value) if isinstance(value, str) else None
        return None if instant is None else str(instant)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else None
    if isinstance(value, int):
        return str(value) if abs(value) <= MOST_CERTAIN else None
    return repr(value) if isinstance(value, float) and math.isfinite(value) else None


def _or_missing(expression: Expression, missing: str | None) -> Expression:
    return expression if expression is None or missing is None else f"({missing} or ({expression}))"


def _all(parts: Sequence[Expression]) -> Expression:
    kept = [part for part in parts if part is not None]
    return None if not kept else kept[0] if len(kept) == 1 else f"({' and '.join(kept)})"


def _any(parts: Sequence[Expression]) -> Expression:
    kept = [part for part in parts if part is not None]
    if len(kept) < len(parts) or not kept:
        return None
    return kept[0] if len(kept) == 1 else f"({' or '.join(kept)})"
