"""Metadata columns: text, numbers, booleans, dates and times, lists of text or of numbers, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError
from embeddings.arrow_columns import MetadataValue as MetadataValue
from embeddings.arrow_columns import convert_metadata
from embeddings.python_objects import convert_to_column

RESERVED_NAMES = ("id", "label")


class MetadataBounds(NamedTuple):
    """Bounds of what writes may bring; a bundle that was built with more is served all the same.

    ``item_fields`` and ``gallery_fields`` are numbers of fields, of which each is a column over all items;
    ``name_length`` and ``text_length`` are in characters, ``field_values`` are values of a list.
    """

    item_fields: int = 64
    gallery_fields: int = 256
    name_length: int = 128
    text_length: int = 8_192
    field_values: int = 64


USUAL_BOUNDS = MetadataBounds()


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
    """An Arrow array of text, whole numbers, floats, booleans, dates, times or lists; NaN becomes missing.

    Raises InputError for a reserved name, infinity, or values of mixed or other types.
    """
    check_metadata_column(name)
    what = f"the metadata column '{name}'"
    column = convert_to_column(values, what, "gallery")
    kept = convert_metadata(column, what, "gallery")
    if kept is None:
        raise InputError(
            f"{what} is {column.type}: only text, numbers, booleans, times, and lists of text "
            "or of numbers can be kept."
        )
    if pa.types.is_uint64(kept.type):
        raise InputError(f"{what} holds whole numbers beyond 2^63: write them as text.")
    if pa.types.is_floating(kept.type):
        infinite = pc.indices_nonzero(pc.fill_null(pc.is_inf(kept), False))
        if len(infinite):
            raise InputError(
                f"{what} holds infinity in row {infinite[0].as_py()}: only finite numbers can be kept; leave "
                "it empty, or write it as text."
            )
    return kept


def check_metadata(columns: Mapping[str, Any]) -> None:
    """Check that an index can keep these columns, before hours are spent; see ``build_metadata_column``."""
    for name, values in columns.items():
        build_metadata_column(name, values)


def check_metadata_column(name: str) -> None:
    """Raises InputError for a reserved name."""
    if is_reserved(name):
        raise InputError(
            f"the metadata column '{name}' cannot be kept: 'id', 'label' and names that begin with "
            "'_' or '$' are taken; rename it."
        )


def collect_metadata(rows: list[Mapping[str, MetadataValue]]) -> dict[str, list[MetadataValue]]:
    """Columns from the metadata of items, None where an item lacks a field."""
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}
