"""Metadata columns: text, numbers and booleans by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError

MetadataValue = str | int | float | bool | None
RESERVED_NAMES = ("id", "label")


def is_reserved(name: str) -> bool:
    """Whether a metadata field cannot have this name."""
    return not name or name in RESERVED_NAMES or name[0] in "_$"


def describe_value(value: object) -> str:
    """A value for a message, shortened."""
    try:
        return f"{value!r:.60}"
    except ValueError:  # Python does not write whole numbers of over 4,300 digits
        return "a number of thousands of digits"


def name_some(names: Collection[str], most: int = 10) -> str:
    """The first ten names in their order, and how many more there are."""
    shown = ", ".join(f"{name:.60}" for name in sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def build_metadata_column(name: str, values: Any) -> pa.Array:
    """An Arrow array of text, whole numbers, floats or booleans; NaN becomes missing, times ISO text.

    Raises InputError for a reserved name, or values of mixed or other types.
    """
    if is_reserved(name):
        raise InputError(
            f"the metadata column '{name}' cannot be kept: 'id', 'label' and names that begin with "
            "'_' or '$' are taken; rename it."
        )
    array = np.asarray(values)
    if array.dtype.kind in "mM":
        array = np.datetime_as_string(array) if array.dtype.kind == "M" else array.astype(np.int64)
    try:
        arrow = pa.array(array, from_pandas=True)
        if pa.types.is_integer(arrow.type):
            return arrow.cast(pa.int64())
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"the metadata column '{name}' must be all text, all numbers or all booleans: {error}."
        ) from None
    kind = arrow.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return arrow.cast(pa.large_string())
    if pa.types.is_boolean(kind):
        return arrow
    if pa.types.is_floating(kind):
        numbers = arrow.cast(pa.float64())
        infinite = pc.indices_nonzero(pc.is_inf(numbers))
        if len(infinite):
            raise InputError(
                f"the metadata column '{name}' holds infinity in row {infinite[0].as_py()}: only finite "
                "numbers can be kept; leave it empty, or write it as text."
            )
        return numbers
    raise InputError(f"the metadata column '{name}' is {kind}: only text, numbers and booleans can be kept.")


def collect_metadata(rows: list[Mapping[str, MetadataValue]]) -> dict[str, list[MetadataValue]]:
    """Columns from the metadata of items, None where an item lacks a field."""
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}
