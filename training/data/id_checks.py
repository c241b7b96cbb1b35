"""Names of items and columns, checked while nothing is lost: before images are decoded or trained on."""

from __future__ import annotations

from collections.abc import Iterable

from common.array_types import Int64s
from common.errors import InputError
from embeddings.files import refuse_reserved
from training.data.items import Items


def refuse_unwritable(items: Items, parts: Iterable[Int64s], source: str, kind: str) -> None:
    """What an embeddings file of a part could not hold: an id that comes twice, a reserved name of a column.

    Args:
        parts: rows of the items that come into a file together.
        kind: of the data, as the configuration has it.

    Raises:
        InputError: names the id and its rows, or the column.
    """
    refuse_reserved(items.metadata, source)
    for rows in parts:
        first: dict[str, int] = {}
        for row, name in zip(rows.tolist(), items.ids[rows].tolist(), strict=True):
            if name in first:
                raise _twice(source, first[name], row, name, kind)
            first[name] = row


def _twice(source: str, row: int, other: int, name: str, kind: str) -> InputError:
    if kind in ("images", "builtin"):
        return InputError(
            f"{source}: images {row} and {other} are both called '{name}': name each image once, and give "
            "folders and archives that are read together different names."
        )
    return InputError(
        f"{source}: rows {row} and {other} of column 'id' are both '{name}': give each its own or none."
    )
