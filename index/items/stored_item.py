"""An item as it is stored, and the rules for its id, label and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.array_types import UnitVectors
from common.errors import InputError
from index.items.columns import ColumnKind, describe_kind
from index.items.metadata import RESERVED_NAMES, MetadataValue

MAX_ID_LENGTH = 512  # characters


@dataclass(frozen=True, eq=False)
class StoredItem:
    """One item; ``vector`` float32 [d], a unit row."""

    id: str
    label: str
    vector: UnitVectors
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


def check_ids(items: Sequence[StoredItem]) -> None:
    """Raises InputError for an id twice, an empty or long one, or text that no database keeps as it is."""
    seen: set[str] = set()
    for number, item in enumerate(items):
        if not item.id or len(item.id) > MAX_ID_LENGTH:
            raise InputError(
                f"items.{number}.id must have 1 to {MAX_ID_LENGTH} characters, found {len(item.id)}."
            )
        for name, text in (("id", item.id), ("label", item.label)):
            _check_text(f"items.{number}.{name}", text)
        if item.id in seen:
            raise InputError(f"items.{number}.id: '{item.id}' occurs twice in one request.")
        seen.add(item.id)


def merge_fields(items: Sequence[StoredItem], known: Mapping[str, ColumnKind]) -> dict[str, ColumnKind]:
    """The known metadata fields and those of these items, with their kinds.

    Raises:
        InputError: a value that is no text, finite number or boolean, or of another kind than its field.
    """
    fields = dict(known)
    for number, item in enumerate(items):
        for name, value in item.metadata.items():
            if value is None:
                continue
            where = f"items.{number}.metadata.{name}"
            kind = _find_kind(value)
            if kind is None or name in RESERVED_NAMES or not name or name[0] in "_$":
                raise InputError(
                    f"{where}: a field is text, a finite number or a boolean; 'id', "
                    f"'label' and names that begin with '_' or '$' are taken; found {value!r:.60}."
                )
            _check_text(where, name)
            if isinstance(value, str):
                _check_text(where, value.replace("\0", ""))  # JSON keeps NUL
            if fields.setdefault(name, kind) != kind:
                raise InputError(
                    f"{where}: the field is {describe_kind(fields[name])} in this gallery, "
                    f"found {value!r:.60}."
                )
    return fields


def _check_text(where: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{where} holds a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where} holds half a character (a lone surrogate), which is not valid Unicode."
        ) from None


def _find_kind(value: object) -> ColumnKind | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int):
        return "number" if -(2**53) <= value <= 2**53 else None
    return "number" if isinstance(value, float) and np.isfinite(value) else None
