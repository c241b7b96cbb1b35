"""Text columns of files that say no types, as written: whether they are numbers, booleans or times."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embeddings.arrow_columns import LARGEST_EXACT_FLOAT, parse_instants, simplify
from embeddings.instants import ISO_8601

WRITTEN = b"limen.written"  # of a field: where its text comes from, a kind of file that says no types
FROM_CSV, FROM_CSV_WITH_COMMAS, FROM_JSON = b"csv", b"csv with decimal commas", b"json"
MISSING_SPELLINGS = ("NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "NaT", "-")
"""In a CSV's column of numbers, booleans or times; in a text they are text."""
LIKELY_TYPED = re.compile(r"[+-]?[.,]?\d|[+-]?inf|true$|false$", re.IGNORECASE)
LIKELY_TIME = re.compile(r"\d{4}-\d")
ROWS_AT_ONCE = 1_024


def get_origin(table: pa.Table, name: str) -> bytes | None:
    """The kind of file that a column's text comes from as written, or None for a column that has a type."""
    return (table.field(name).metadata or {}).get(WRITTEN)


def infer_type(table: pa.Table, name: str) -> Any:
    """A column as one array; text of a CSV that is all numbers, booleans or times as these.

    Digits are text where a number would lose some: with leading zeros, or beyond 64 bits.
    """
    column, origin = simplify(table.column(name)), get_origin(table, name)
    if origin is None or not _may_have_type(column, origin):
        return column
    texts = pc.utf8_trim_whitespace(column)
    if origin != FROM_JSON:
        is_missing = pc.is_in(texts, pa.array(MISSING_SPELLINGS, pa.large_string()))
        texts = pc.if_else(pc.fill_null(is_missing, True), pa.scalar(None, pa.large_string()), texts)
        if texts.null_count == len(texts):
            return column
        lowered = pc.utf8_lower(texts)
        if holds_everywhere(pc.is_in(lowered, pa.array(["true", "false"], pa.large_string())), texts):
            return pc.equal(lowered, "true")
        numbers = _infer_numbers(texts, origin)
        if numbers is not None:
            return numbers
    instants = _infer_instants(texts)
    return column if instants is None else instants


def parse_floats(table: pa.Table, name: str) -> Any:
    """A column as written as float64, whatever zeros lead its digits; itself where it is no numbers."""
    column, origin = simplify(table.column(name)), get_origin(table, name)
    if origin not in (FROM_CSV, FROM_CSV_WITH_COMMAS):
        return column
    texts = pc.utf8_trim_whitespace(column)
    is_missing = pc.is_in(texts, pa.array(MISSING_SPELLINGS, pa.large_string()))
    texts = pc.if_else(pc.fill_null(is_missing, True), pa.scalar(None, pa.large_string()), texts)
    floats = _cast_to_floats(texts, origin)
    return column if floats is None else floats


def _may_have_type(column: Any, origin: bytes) -> bool:
    """Whether the first value that is there could be a number, a boolean or a time."""
    likely = LIKELY_TIME if origin == FROM_JSON else LIKELY_TYPED
    for start in range(0, len(column), ROWS_AT_ONCE):
        for value in column.slice(start, ROWS_AT_ONCE).to_pylist():
            text = "" if value is None else value.strip()
            if text and (origin == FROM_JSON or text not in MISSING_SPELLINGS):
                return likely.match(text) is not None
    return False


def _infer_numbers(texts: Any, origin: bytes) -> Any:
    digits = pc.utf8_ltrim(texts, characters="+")
    begins_whole = texts.drop_null()[0].as_py().lstrip("+-").isdecimal()
    for kind in (pa.int64(), pa.uint64()) if begins_whole else ():
        try:
            whole = pc.cast(digits, kind)
        except pa.ArrowInvalid:
            continue
        same = pc.equal(pc.cast(whole, pa.large_string()), digits)
        return whole if pc.all(same).as_py() or not _has_leading_zeros(texts) else None
    if _has_leading_zeros(texts) or holds_everywhere(pc.match_substring_regex(texts, r"^[+-]?\d+$"), texts):
        return None
    floats = _cast_to_floats(texts, origin)
    if floats is None:
        return None
    whole = pc.fill_null(pc.match_substring_regex(texts, r"^[+-]?\d{16,}$"), False)
    too_large = pc.greater_equal(pc.abs(floats), float(LARGEST_EXACT_FLOAT))
    return None if pc.any(pc.and_(whole, pc.fill_null(too_large, False))).as_py() else floats


def _has_leading_zeros(texts: Any) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, r"^[+-]?0\d")).as_py())


def _cast_to_floats(texts: Any, origin: bytes) -> Any:
    plain = pc.utf8_ltrim(texts, characters="+")
    try:
        return pc.cast(plain, pa.float64())
    except pa.ArrowInvalid:
        pass
    if origin == FROM_CSV_WITH_COMMAS and holds_everywhere(
        pc.match_substring_regex(texts, r"^[+-]?\d*(,\d+)?([eE][+-]?\d+)?$"), texts
    ):
        try:
            return pc.cast(pc.replace_substring(plain, ",", "."), pa.float64())
        except pa.ArrowInvalid:
            pass
    return None


def _infer_instants(texts: Any) -> Any:
    first = texts.drop_null()[0].as_py()
    if ISO_8601.fullmatch(first) is None:
        return None
    kinds = [pa.date32()] if len(first) == len("2024-01-31") else []
    for kind in (*kinds, pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pc.cast(texts, kind)
        except pa.ArrowInvalid:
            continue
    parsed = parse_instants(texts.to_pylist())  # with and without zones
    return parsed if parsed.null_count == texts.null_count else None


def holds_everywhere(condition: Any, texts: Any) -> bool:
    """Whether a condition holds wherever there is a value."""
    return bool(pc.sum(condition.cast(pa.int64())).as_py() == len(texts) - texts.null_count)


def are_integers(texts: Any) -> bool:
    """Whether every text that is there is the digits of an integer, perhaps with spaces around them."""
    trimmed = pc.utf8_trim_whitespace(texts)
    return holds_everywhere(pc.match_substring_regex(trimmed, r"^[+-]?[0-9]+$"), trimmed)
