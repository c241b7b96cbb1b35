"""JSON of rows: one object a line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import InputError
from embeddings.delimited_text import open_decoded

SPACES = "\ufeff \t\r\n"  # around an object
BLOCK_CHARACTERS = 1 << 20  # of an array, read at once


def iterate_json(path: Path, encoding: str | None) -> Iterator[dict[str, Any]]:
    """The objects of a file, of which a few are held at once; raises InputError naming a line."""
    with open_decoded(path, encoding) as file:
        number, first = _skip_spaces(file)
        values = _iterate_array(file, number) if first == "[" else _iterate_lines(file, number, first)
        try:
            for number, value in values:
                if not isinstance(value, dict):
                    raise InputError(
                        f"{path} cannot be read as a table: line {number} is no object of columns and values."
                    )
                yield value
        except _NoJson as error:
            raise InputError(
                f"{path} cannot be read as a table: line {error.line} is not JSON ({error.reason}): write "
                "one object a line."
            ) from None


class _NoJson(Exception):
    """Text that is no JSON.

    Attributes:
        line: its number, from 1. reason: what is wrong with it.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


def _skip_spaces(file: IO[str]) -> tuple[int, str]:
    """Number of the line that something is on first, from 1, and its first character; none at the end."""
    number = 1
    while (character := file.read(1)) and character in SPACES:
        number += character == "\n"
    return number, character


def _iterate_lines(file: IO[str], number: int, first: str) -> Iterator[tuple[int, Any]]:
    line = first + file.readline()
    while line:
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise _NoJson(number, f"{error.msg} at character {error.pos + 1}") from None
            except RecursionError as error:
                raise _NoJson(number, str(error)) from None
        line = file.readline()
        number += 1


def _iterate_array(file: IO[str], number: int) -> Iterator[tuple[int, Any]]:
    """The values of an array whose bracket has been read, and the line that each begins on."""
    text = _Ahead(file, number)
    is_first = True
    while (character := text.peek()) != "]":
        if not is_first:
            text.expect(character == ",", "Expecting ',' or ']'")
            text.at += 1
            text.peek()
        yield text.line, text.decode()
        is_first = False
    text.at += 1
    text.expect(text.peek() == "", "Extra data")


class _Ahead:
    """The text of a file around a position, read block by block.

    Attributes:
        at: the position in the text that is held. line: its number, from 1, after ``peek``.
    """

    def __init__(self, file: IO[str], line: int) -> None:
        self.at, self.line = 0, line
        self._file, self._text, self._counted = file, "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space, to which the position moves; none at the end."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in SPACES:
                self.at += 1
            self.line += self._text.count("\n", self._counted, self.at)
            self._counted = self.at
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._read_on():
                return ""

    def decode(self) -> Any:
        """The value at the position, which moves behind it."""
        while True:
            try:
                value, self.at = self._decode(self._text, self.at)
                return value
            except json.JSONDecodeError as error:
                if not self._read_on():
                    raise _NoJson(self.line, error.msg) from None
            except RecursionError as error:
                raise _NoJson(self.line, str(error)) from None

    def expect(self, is_met: bool, otherwise: str) -> None:
        """Raises _NoJson unless something is met."""
        if not is_met:
            raise _NoJson(self.line, otherwise)

    def _read_on(self) -> bool:
        """Hold as much again, from the position on; whether there was more."""
        held = self._text[self.at :]
        more = self._file.read(max(BLOCK_CHARACTERS, len(held)))
        self._counted -= self.at
        self._text, self.at = held + more, 0
        return bool(more)


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
