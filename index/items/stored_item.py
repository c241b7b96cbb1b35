"""An item as it is stored, and the rules for its id, label and metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.array_types import UnitVectors
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.instants import parse_instant
from index.items.columns import LIST_KINDS, ColumnKind, FieldUse, describe_kind, is_list_kind
from index.items.metadata import (
    USUAL_BOUNDS,
    MetadataBounds,
    MetadataValue,
    describe_value,
    is_reserved,
    name_some,
)

MAX_ID_LENGTH = 512  # characters
CHECKED_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class StoredItem:
    """One item; ``vector`` float32 [d], a unit row."""

    id: str
    label: str
    vector: UnitVectors
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


def check_items(items: Sequence[StoredItem], bounds: MetadataBounds = USUAL_BOUNDS) -> None:
    """Raises InputError for an item that no gallery takes.

    An id twice, an empty or long one; text that no database keeps as it is; a metadata field that has a
    reserved or long name, a value that is no text, finite number, boolean or list of texts or of numbers, a
    long text or list; too many fields.
    """
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
        check_metadata(f"items.{number}.metadata", item.metadata, bounds)


def check_metadata(where: str, metadata: Mapping[str, object], bounds: MetadataBounds = USUAL_BOUNDS) -> None:
    """Raises InputError for too many fields, or one that no item may have."""
    if len(metadata) > bounds.item_fields:
        raise InputError(f"{where} has {len(metadata)} fields, an item may have {bounds.item_fields}.")
    for name, value in metadata.items():
        _check_field(f"{where}.{name:.60}", name, value, bounds)


def check_built_items(items: EmbeddingSet) -> None:
    """Raises InputError for ids and labels that a bundle may not hold, because no item store takes them."""
    for name, texts in (("id", items.ids), ("label", items.labels)):
        for start in range(0, len(texts), CHECKED_ROWS):
            block = np.ascontiguousarray(texts[start : start + CHECKED_ROWS])
            points = block.view(np.uint32).reshape(len(block), -1)
            wrong = ((points >= 0xD800) & (points <= 0xDFFF)).any(axis=1)
            # numpy pads with NUL, so that only one with more behind it is the text's own
            wrong |= ((points[:, :-1] == 0) & (points[:, 1:] != 0)).any(axis=1)
            for row in np.flatnonzero(wrong).tolist():
                _check_text(f"the {name} of row {start + row}", str(block[row]))
    lengths = np.char.str_len(items.ids)
    wrong_ids = np.flatnonzero((lengths < 1) | (lengths > MAX_ID_LENGTH))
    if len(wrong_ids):
        row = int(wrong_ids[0])
        raise InputError(
            f"the id of row {row} must have 1 to {MAX_ID_LENGTH} characters, found {lengths[row]}: give it "
            "another."
        )


def merge_fields(
    items: Sequence[StoredItem],
    replaced: Iterable[Mapping[str, MetadataValue]],
    known: Mapping[str, FieldUse],
    bounds: MetadataBounds = USUAL_BOUNDS,
) -> dict[str, FieldUse]:
    """The metadata fields of a gallery once items are written; a field that no item has is forgotten.

    Args:
        items: checked items.
        replaced: the metadata of those that they replace.
        known: the fields before.

    Raises:
        InputError: a value of another kind than its field has, or too many fields.
    """
    fields = subtract_fields(replaced, known)
    for number, item in enumerate(items):
        for name, value in item.metadata.items():
            kind = find_kind(value)
            if kind is None:
                continue
            use = fields.get(name, FieldUse(kind, 0))
            if not fits_kind(value, use.kind):
                raise InputError(
                    f"items.{number}.metadata.{name}: the field is {describe_kind(use.kind)} in this "
                    f"gallery, found {describe_value(value)}."
                )
            held = kind if use.kind == "list" else use.kind
            fields[name] = FieldUse(held, use.items + 1)
    new = fields.keys() - known.keys()
    if new and len(fields) > bounds.gallery_fields:
        raise InputError(
            f"items: a gallery may have {bounds.gallery_fields} metadata fields, it would have {len(fields)} "
            f"with {name_some(new)}: write fewer fields, or several values into one."
        )
    return fields


def subtract_fields(
    gone: Iterable[Mapping[str, MetadataValue]], known: Mapping[str, FieldUse]
) -> dict[str, FieldUse]:
    """The metadata fields that are left when items with this metadata are deleted."""
    fields = dict(known)
    for metadata in gone:
        for name, value in metadata.items():
            use = fields.get(name)
            if value is None or use is None:
                continue
            if use.items > 1:
                fields[name] = FieldUse(use.kind, use.items - 1)
            else:
                del fields[name]
    return fields


def _check_field(where: str, name: str, value: object, bounds: MetadataBounds) -> None:
    _check_text(where, name)
    if len(name) > bounds.name_length:
        raise InputError(
            f"{where}: the name of a field may have {bounds.name_length} characters, this one has "
            f"{len(name)}."
        )
    if value is None:
        return
    if find_kind(value) is None or is_reserved(name):
        raise InputError(
            f"{where}: a field is text, a finite number (a whole number of up to 64 bits), a boolean, or a "
            "list of texts or of numbers; 'id', 'label' and names that begin with '_' or '$' are taken; "
            f"found {describe_value(value)}."
        )
    if isinstance(value, list) and len(value) > bounds.field_values:
        raise InputError(f"{where}: a list may have {bounds.field_values} values, this one has {len(value)}.")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            _check_text(where, text.replace("\0", ""))  # JSON keeps NUL
            if len(text) > bounds.text_length:
                raise InputError(
                    f"{where}: a text may have {bounds.text_length} characters, this one has {len(text)}."
                )


def is_storable(text: str) -> bool:
    """Whether a database can hold this text at all: neither NUL nor half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _check_text(where: str, text: str) -> None:
    if is_storable(text):
        return
    where = where.encode("utf-8", "replace").decode()
    if "\0" in text:
        raise InputError(f"{where} holds a NUL character.")
    raise InputError(f"{where} holds half a character (a lone surrogate), which is not valid Unicode.")


def fits_kind(value: object, kind: ColumnKind) -> bool:
    """Whether a field of this kind may have the value."""
    if kind == "time" and isinstance(value, str) and parse_instant(value) is not None:
        return True
    found = find_kind(value)
    if isinstance(value, list):
        small = kind == "integers" and found == "numbers" and all(isinstance(part, int) for part in value)
        return found is not None and (
            found == kind or small or (is_list_kind(kind) and "list" in (found, kind))
        )
    # small whole numbers are numbers, and may stand among those beyond 2^53
    return found == kind or (kind == "integer" and isinstance(value, int) and found == "number")


def find_kind(value: object) -> ColumnKind | None:
    """The kind of a metadata value; None for a missing one, and for what no field may hold."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int):
        if -(2**53) <= value <= 2**53:
            return "number"
        return "integer" if -(2**63) <= value < 2**63 else None
    if isinstance(value, list):
        return _find_list_kind(value)
    return "number" if isinstance(value, float) and math.isfinite(value) else None


def _find_list_kind(values: list[object]) -> ColumnKind | None:
    kinds = {find_kind(value) for value in values}
    if not kinds:
        return "list"
    if kinds == {"number", "integer"} and all(isinstance(value, int) for value in values):
        return "integers"
    only = kinds.pop()
    return LIST_KINDS.get(only) if only is not None and not kinds else None
