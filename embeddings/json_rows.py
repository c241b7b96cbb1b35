"""JSON of rows: one object a line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from common.errors import InputError
from embeddings.delimited_text import read_lines

SPACES = "\ufeff \t\r\n"  # of a line of JSON that holds nothing


def iterate_json(path: Path, encoding: str | None) -> Iterator[dict[str, Any]]:
    """The objects of a file, of which those of lines are not all held; raises InputError naming a line."""
    numbered = enumerate(read_lines(path, encoding), 1)
    start, first = next(((number, line) for number, line in numbered if line.strip(SPACES)), (1, ""))
    first = first.removeprefix("\ufeff")
    is_array = first.lstrip().startswith("[")
    if is_array:
        first = "".join([first, *(line for _, line in numbered)])
    for number, line in chain([(start, first)], numbered):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"{path} cannot be read as a table: line {number} is not JSON ({reason}): write one object "
                "a line."
            ) from None
        for entry in value if is_array and isinstance(value, list) else [value]:
            if not isinstance(entry, dict):
                raise InputError(
                    f"{path} cannot be read as a table: line {number} is no object of columns and values."
                )
            yield entry


class JsonColumns:
    """Values by name, None where a row has none.

    Attributes:
        rows: how many there are.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, list[Any]] = {}

    @property
    def names(self) -> list[str]:
        """The columns that are held, in the order they first came."""
        return list(self._columns)

    def add(self, row: dict[str, Any]) -> None:
        """The values of one more row."""
        for name, value in row.items():
            column = self._columns.setdefault(name, [])
            column.extend([None] * (self.rows - len(column)))
            column.append(value)
        self.rows += 1

    def take(self) -> Iterator[tuple[str, list[Any]]]:
        """Each column, which is not held any more."""
        for name in list(self._columns):
            values = self._columns.pop(name)
            values.extend([None] * (self.rows - len(values)))
            yield name, values
