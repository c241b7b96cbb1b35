"""Arrow columns, whatever wrote them, as labels, ids and metadata: what is missing stays missing.

Labels and ids become text. Metadata are text, whole numbers, floats, booleans, instants, or lists of text or
of numbers; each column keeps its Arrow type up to where it is used, so that no number loses a digit and no
missing value turns into one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.array_types import Texts
from common.errors import InputError
from embeddings.instants import NANOSECONDS_A_DAY, format_instant, parse_instant
from embeddings.list_columns import (
    ListParts,
    build_lists,
    fill_array,
    find_unfit_list,
    is_lists,
    split_lists,
)

LONGEST_UNCHECKED = 1_000  # characters; no label or id that is shorter is refused for its length
MOST_BYTES = 256 << 20  # of labels or ids with longer ones: each takes the room of the longest
BYTES_A_CHARACTER = 4
ROWS_AT_ONCE = 8_192  # that are Python's objects at once
LARGEST_EXACT_FLOAT = 2**53  # whole numbers up to here are floats without loss
CAST_TO_TEXT = (pa.types.is_null, pa.types.is_integer, pa.types.is_boolean, pa.types.is_time)
DATE_LENGTH = len("2024-01-31")
# the same as ``is_blank`` says of a text
_BLANK = r"^[\s\x0b\x1c-\x1f\x{85}\p{Z}\p{Cf}]*$"
MetadataValue = str | int | float | bool | list[str | int | float] | None


def simplify(column: Any) -> Any:
    """One Arrow array without dictionaries, views, run ends or known extensions; text is large_string.

    A type that cannot be simplified is kept as it is.
    """
    if isinstance(column, pa.ChunkedArray):
        chunks = [simplify(chunk) for chunk in column.chunks] or [simplify(pa.array([], column.type))]
        return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return pa.array(
                [
                    None if value is None else str(uuid.UUID(bytes=value))
                    for value in column.storage.to_pylist()
                ],
                pa.large_string(),
            )
        if kind.extension_name in ("arrow.json", "arrow.fixed_shape_tensor"):
            return simplify(column.storage)
        return column.cast(pa.bool_()) if kind.extension_name == "arrow.bool8" else column
    if pa.types.is_dictionary(kind):
        return simplify(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return simplify(pc.run_end_decode(column))
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    return column


def is_text(kind: Any) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string(kind))


def format_texts(column: Any, what: str, source: str) -> Any:
    """Labels or ids as large_string, null where they are missing; integers as their digits.

    Args:
        column: simplified.
        what: what messages call it, e.g. ``column 'label'``.

    Raises:
        InputError: decimals, lists and other types that have no one text; text that is no UTF-8.
    """
    kind = column.type
    if is_text(kind) or any(is_type(kind) for is_type in CAST_TO_TEXT):
        texts = column.cast(pa.large_string())
    elif pa.types.is_decimal(kind) and kind.scale <= 0:
        texts = _map_values(column, lambda value: str(int(value)))
    elif pa.types.is_date(kind):
        texts = column.cast(pa.date32()).cast(pa.large_string())
    elif pa.types.is_timestamp(kind):
        texts = format_column(convert_instants(column, what, source))
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        texts = _decode_utf8(column)
    else:
        texts = None
        if pa.types.is_floating(kind):
            column = convert_floats(column)
            texts = column.cast(pa.large_string()) if column.null_count == len(column) else None
    if texts is None:
        if pa.types.is_floating(kind) and column.null_count:
            raise _build_missing_error(column, what, source)
        cure = ": write whole numbers as integers, all else as text" if is_number(kind) else ""
        raise InputError(f"{source}: {what} must be integers or text, found {kind}{cure}.")
    _check_utf8(texts, what, source)
    return texts


def is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def check_texts(texts: Any, what: str, source: str, first: int | None = None) -> None:
    """Check labels or ids [n], large_string.

    Args:
        first: number of the first row, of a part of a column.

    Raises:
        InputError: one that is missing, empty or holds a NUL character; names the row.
    """
    if texts.null_count:
        raise _build_missing_error(texts, what, source, first)
    before = first or 0
    blank = pc.match_substring_regex(texts, _BLANK)
    if pc.any(blank).as_py():
        row = before + pc.index(blank, True).as_py()
        raise InputError(f"{source}: row {row} of {what} is empty: give it a text, or leave the row out.")
    nul = pc.match_substring(texts, "\0")
    if pc.any(nul).as_py():
        row = before + pc.index(nul, True).as_py()
        raise InputError(f"{source}: row {row} of {what} holds a NUL character.")


def convert_to_texts(column: Any, what: str, source: str) -> Texts:
    """A column of labels or ids as text [n].

    Raises:
        InputError: as ``format_texts`` and ``check_texts``, or a text so long that the array would be huge.
    """
    texts = format_texts(simplify(column), what, source)
    check_texts(texts, what, source)
    return convert_to_fixed_width(texts, what, source)


def convert_to_fixed_width(texts: Any, what: str, source: str) -> Texts:
    """Large_string without missing values as a numpy array, in which each takes the room of the longest."""
    lengths = pc.utf8_length(texts)
    longest = pc.max(lengths).as_py() or 0
    if longest > LONGEST_UNCHECKED and longest * len(texts) * BYTES_A_CHARACTER > MOST_BYTES:
        raise InputError(
            f"{source}: row {pc.index(lengths, longest).as_py()} of {what} has {longest} characters, and "
            f"each of {len(texts)} rows takes the room of the longest: shorten it, or leave the column out."
        )
    converted = np.empty(len(texts), dtype=f"<U{max(longest, 1)}")
    for start in range(0, len(texts), ROWS_AT_ONCE):
        part = texts.slice(start, ROWS_AT_ONCE)
        converted[start : start + len(part)] = part.to_pylist()
    return converted


def convert_metadata(column: Any, what: str, source: str) -> Any:
    """A metadata column as large_string, int64, uint64, float64, bool, date32 or timestamp in UTC, or as
    large_list of the first four.

    Nulls are kept, NaN and NaT are null; durations are seconds. None for a type that is no such
    column: lists of anything else, structs, binary data.

    Raises:
        InputError: whole numbers beyond 64 bits, text that is no UTF-8, times out of range, a list with a
            missing value or infinity.
    """
    column = simplify(column)
    kind = column.type
    if is_text(kind) or pa.types.is_null(kind):
        texts = column.cast(pa.large_string())
        _check_utf8(texts, what, source)
        return texts
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_integer(kind):
        is_int64 = kind != pa.uint64() or (pc.max(column).as_py() or 0) < 2**63
        return column.cast(pa.int64()) if is_int64 else column
    if pa.types.is_floating(kind):
        return convert_floats(column)
    if pa.types.is_decimal(kind):
        return _convert_decimals(column, what, source)
    if pa.types.is_date32(kind):
        return column
    if pa.types.is_date64(kind) or pa.types.is_timestamp(kind):
        return convert_instants(column, what, source)
    if pa.types.is_time(kind):  # 12:30:00, with as many digits of a second as are needed
        texts = pc.replace_substring_regex(column.cast(pa.large_string()), r"(\.\d*[1-9])0+$", r"\1")
        return pc.replace_substring_regex(texts, r"\.0+$", "")
    if pa.types.is_duration(kind):
        seconds = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), float(seconds))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _decode_utf8(column)
    if not is_lists(kind):
        return None
    parts = convert_lists(column, what, source)
    fault = None if parts is None else find_unfit_list(parts)
    if fault is not None:
        raise InputError(f"{source}: {what} holds {fault}.")
    return None if parts is None else build_lists(parts)


def convert_lists(column: Any, what: str, source: str) -> ListParts | None:
    """Lists of text or of numbers, the values as ``convert_metadata`` has them; None for other lists."""
    parts = split_lists(column)
    values = simplify(parts.values)
    if not (is_text(values.type) or is_number(values.type) or pa.types.is_null(values.type)):
        return None
    return parts._replace(values=convert_metadata(values, what, source))


def convert_floats(column: Any) -> Any:
    """Floats of any width as float64, NaN as missing."""
    floats = column.cast(pa.float64())
    return pc.if_else(pc.fill_null(pc.is_nan(floats), False), pa.scalar(None, pa.float64()), floats)


def convert_instants(column: Any, what: str, source: str) -> Any:
    """Dates and times of any unit and zone as timestamps in UTC, in microseconds or where needed nano-."""
    if pa.types.is_date64(column.type):
        return column.cast(pa.date32())
    unit = "us"
    if column.type.unit == "ns":
        nanoseconds = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        whole = pc.multiply(pc.divide(nanoseconds, 1000), 1000)
        unit = "us" if pc.all(pc.equal(whole, nanoseconds)).as_py() is not False else "ns"
    try:  # the numbers are of UTC whatever the zone; without one they are taken as UTC
        return column.cast(pa.timestamp(unit, column.type.tz)).cast(pa.timestamp(unit, "UTC"))
    except pa.ArrowInvalid as error:
        raise InputError(f"{source}: {what} holds a time that is out of range: {error}.") from None


def is_instants(kind: Any) -> bool:
    """Whether a metadata column holds dates or times."""
    return bool(pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


def parse_instants(texts: Sequence[str | None]) -> Any:
    """Texts in ISO 8601 as date32 if all are dates, else timestamps in UTC; other texts are missing."""
    parsed = [None if text is None else parse_instant(text) for text in texts]
    present = [value for value in parsed if value is not None]
    if all(len(text.strip()) == DATE_LENGTH for text in texts if text is not None):
        days = [None if value is None else value // NANOSECONDS_A_DAY for value in parsed]
        return pa.array(days, pa.int32()).cast(pa.date32())
    if any(value % 1_000 for value in present):
        return pa.array(parsed, pa.timestamp("ns", "UTC"))
    microseconds = [None if value is None else value // 1_000 for value in parsed]
    return pa.array(microseconds, pa.timestamp("us", "UTC"))


def compute_nanoseconds(column: Any) -> list[int | None]:
    """Dates or times of a metadata column as nanoseconds since 1970, a date as its midnight in UTC."""
    if pa.types.is_date32(column.type):
        numbers, factor = column.cast(pa.int32()), NANOSECONDS_A_DAY
    else:
        numbers, factor = column.cast(pa.int64()), {"us": 1_000, "ns": 1}[column.type.unit]
    return [None if value is None else value * factor for value in numbers.to_pylist()]


def list_values(column: Any) -> list[MetadataValue]:
    """A metadata column as JSON has it: dates and times as ISO 8601 text, None for missing."""
    if is_instants(column.type):
        texts: list[MetadataValue] = format_column(column).to_pylist()
        return texts
    values: list[MetadataValue] = column.to_pylist()
    return values


def format_column(column: Any) -> Any:
    """A metadata column as large_string, null where a value is missing; times as ISO 8601 in UTC."""
    if pa.types.is_timestamp(column.type):
        texts = [None if value is None else format_instant(value) for value in compute_nanoseconds(column)]
        return pa.array(texts, pa.large_string())
    return column.cast(pa.large_string())


def concatenate_columns(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Metadata columns one after the other; None is a column of that size without values.

    Columns of different types become floats where these hold all their numbers, else text; so do lists.

    Raises:
        InputError: lists in one column and single values in another.
    """
    if any(part is not None and is_lists(part.type) for part in parts):
        return _concatenate_lists(parts, sizes)
    kinds = {str(part.type): part.type for part in parts if part is not None and part.null_count < len(part)}
    kinds = kinds or {str(part.type): part.type for part in parts if part is not None}
    if len(kinds) == 1:
        kind = next(iter(kinds.values()))
    elif all(is_number(kind) for kind in kinds.values()):
        kind = pa.float64()
    elif all(is_instants(kind) for kind in kinds.values()):
        units = {kind.unit for kind in kinds.values() if pa.types.is_timestamp(kind)}
        kind = pa.timestamp("ns" if "ns" in units else "us", "UTC")
    else:
        kind = pa.large_string()
    try:
        return pa.concat_arrays([_cast_to(part, kind, n) for part, n in zip(parts, sizes, strict=True)])
    except pa.ArrowInvalid:  # digits that floats lose, times that nanoseconds do not reach
        kind = pa.large_string()
        return pa.concat_arrays([_cast_to(part, kind, n) for part, n in zip(parts, sizes, strict=True)])


def _concatenate_lists(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    lists = []
    for part, n in zip(parts, sizes, strict=True):
        if part is None or part.null_count == len(part):
            part = pa.nulls(n, pa.large_list(pa.large_string()))
        if not is_lists(part.type):
            raise InputError("a metadata column holds lists in one set and single values in another.")
        lists.append(split_lists(part))
    held = [len(part.values) for part in lists]
    values = concatenate_columns(
        [part.values if n else None for part, n in zip(lists, held, strict=True)], held
    )
    lengths = np.concatenate([part.lengths for part in lists])
    return build_lists(ListParts(values, lengths, np.concatenate([part.missing for part in lists])))


def _cast_to(column: Any, kind: Any, n: int) -> Any:
    if column is None or column.null_count == len(column):
        return pa.nulls(n, kind)
    if is_text(kind):
        return format_column(column)
    if pa.types.is_date32(column.type) and pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp(kind.unit))
    return column.cast(kind)


def to_numpy(column: Any, what: str, source: str) -> NDArray[Any]:
    """A metadata column as numpy has it, masked where a value is missing; instants as datetime64 in UTC,
    lists as objects.

    Digits of whole numbers stay, which Arrow's own conversion turns into floats where one is missing.

    Raises:
        InputError: a text so long that the array would be huge; names the row.
    """
    kind = column.type
    if is_lists(kind):
        return fill_array(column)
    if is_text(kind):
        filled: NDArray[Any] = convert_to_fixed_width(column.fill_null(""), what, source)
    elif pa.types.is_timestamp(kind):
        filled = column.cast(pa.timestamp(kind.unit)).to_numpy(zero_copy_only=False)
    elif pa.types.is_floating(kind) or pa.types.is_date32(kind):
        filled = column.to_numpy(zero_copy_only=False)
    else:
        blank = False if pa.types.is_boolean(kind) else 0
        filled = column.fill_null(pa.scalar(blank, kind)).to_numpy(zero_copy_only=False)
    if not column.null_count:
        return filled
    return np.ma.MaskedArray(filled, pc.is_null(column).to_numpy(zero_copy_only=False))


def _convert_decimals(column: Any, what: str, source: str) -> Any:
    values = column.to_pylist()
    if column.type.scale > 0:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    whole = [None if value is None else int(value) for value in values]
    for kind in (pa.int64(), pa.uint64()):
        try:
            return pa.array(whole, kind)
        except (pa.ArrowException, OverflowError):
            continue
    raise InputError(f"{source}: {what} holds whole numbers beyond 64 bits: write them as text.")


def _map_values(column: Any, form: Callable[[Any], str]) -> Any:
    values: Iterable[Any] = column.to_pylist()
    return pa.array([None if value is None else form(value) for value in values], pa.large_string())


def _decode_utf8(column: Any) -> Any:
    """Bytes that are UTF-8 text as text; None for others, and for numbers, which have zero bytes."""
    try:
        texts = _map_values(column, lambda value: bytes(value).decode())
    except UnicodeDecodeError:
        return None
    return None if pc.any(pc.match_substring(texts, "\0")).as_py() else texts


def _check_utf8(texts: Any, what: str, source: str) -> None:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raise InputError(f"{source}: {what} holds text that is not valid UTF-8: write it again.") from None


def _build_missing_error(column: Any, what: str, source: str, first: int | None = None) -> InputError:
    row = (first or 0) + pc.index(pc.is_null(column), True).as_py()
    count = f" ({column.null_count} such rows)" if first is None else ""
    return InputError(f"{source}: row {row} of {what} has no value{count}.")
