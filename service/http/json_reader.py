"""Reading JSON bodies: small ones at once, large ones in steps between which the event loop answers others.

A large body is split at the elements of its one long list (queries, items, pairs), which are counted and
validated a few at a time. Reading stops at the first element that is one too many or not valid, so that what
a body costs is bounded by what is allowed, whatever it holds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterator
from time import perf_counter
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from api_schemas.base import Schema
from service.errors.problems import (
    DEADLINE,
    INVALID_REQUEST,
    LIMIT_EXCEEDED,
    NOT_JSON,
    ServiceProblem,
    build_field_problem,
)

B = TypeVar("B", bound=Schema)
Steps = Generator[None, None, None]
# bytes that are parsed in one call: about a millisecond
AT_ONCE = 1 << 16
# of one element, or of all fields beside the list: more than any vector has numbers
MAX_VALUES = 100_000
MAX_BRACKETS = 20_000
MAX_DEPTH = 100
MAX_FIELDS = 100
_STEP_SECONDS = 0.002
_BLANK = re.compile(rb"[ \t\n\r]{0,1048576}+")
# no number or word is longer, and no indentation
_ATOM = re.compile(rb'[^\[\]{},:"\s]{1,8192}+')
_NESTED = re.compile(rb'[\[\]{}"]')
_ESCAPED = re.compile(rb'(?:[^"\\]++|\\.){0,4096}+', re.DOTALL)


class JsonReader(Generic[B]):
    """Reads bodies of one model.

    Args:
        model: what a body is.
        elements: the field that is the model's long list, if it has one.
        max_values: values in one element, or in a body without such a list.
    """

    def __init__(self, model: type[B], elements: str | None = None, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._body: TypeAdapter[B] = TypeAdapter(model)
        self._list = elements or ""
        self._elements: TypeAdapter[list[Any]] | None = None
        if elements is not None:
            kinds = tuple(_list_element_types(model.model_fields[elements].annotation))
            of_elements: Any = Annotated[list[Union[kinds]], Field(fail_fast=True)]  # type: ignore[valid-type]  # noqa: UP007
            self._elements = TypeAdapter(of_elements)

    async def read(self, body: bytes, limit: int, turn: asyncio.Lock, deadline: float) -> B:
        """The validated body.

        Args:
            limit: elements that the list may have.
            turn: held while a large body is read: one at a time, which bounds the memory that this takes.
            deadline: seconds that reading and waiting for the turn may take.

        Raises:
            ServiceProblem: names the first field that is not valid, or says that the body is not JSON.
        """
        if len(body) <= AT_ONCE:
            return _validate(self._body, body)
        try:
            async with asyncio.timeout(deadline), turn:
                reading = self._read_in_steps(body, limit)
                while True:
                    try:
                        next(reading)
                    except StopIteration as done:
                        validated: B = done.value
                        return validated
                    await asyncio.sleep(0)
        except TimeoutError:
            raise ServiceProblem(
                DEADLINE,
                f"Reading the body took over {deadline:g} s (LIMEN_DEADLINE): send less at once.",
                headers={"Retry-After": "5"},
            ) from None

    def _read_in_steps(self, body: bytes, limit: int) -> Generator[None, None, B]:
        scan = _Scanner(body, self._max_values)
        elements: list[Any] = []
        # the body without its list, of which the first element stays
        fields: list[bytes] = []
        for name, start in scan.iterate_fields():
            if name is None:
                yield
            elif name == self._list and scan.peek() == b"[" and not elements:
                value = scan.pos
                yield from self._read_elements(scan, limit, elements, fields, body[start:value])
                scan.begin_value("(body)")
            else:
                yield from scan.skip_value()
                fields.append(body[start : scan.pos])
            if len(fields) > MAX_FIELDS:
                raise build_field_problem(LIMIT_EXCEEDED, "(body)", f"it has over {MAX_FIELDS} fields")
        whole = b"{" + b",".join(fields) + b"}"
        read = _validate(self._body, whole)
        return read.model_copy(update={self._list: elements}) if elements else read

    def _read_elements(
        self, scan: _Scanner, limit: int, elements: list[Any], fields: list[bytes], head: bytes
    ) -> Steps:
        """Validate the list at the scanner's position; its first element goes to ``fields`` as well."""
        assert self._elements is not None
        body, count, group = scan.body, 0, -1
        for start in scan.iterate_elements():
            if start is None:
                yield
                continue
            count += 1
            if count > limit:
                raise build_field_problem(
                    LIMIT_EXCEEDED,
                    self._list,
                    f"over {limit} given, at most {limit} are allowed in one request",
                )
            group = start if group < 0 else group
            scan.begin_value(f"{self._list}.{count - 1}")
            yield from scan.skip_value()
            if count == 1:
                fields.append(head + b"[" + body[start : scan.pos] + b"]")
            if scan.pos - group >= AT_ONCE:
                self._validate_group(body[group : scan.pos], elements)
                group = -1
                yield
        if group >= 0:
            self._validate_group(body[group : scan.last_end], elements)
        if not count:
            fields.append(head + b"[]")

    def _validate_group(self, group: bytes, elements: list[Any]) -> None:
        assert self._elements is not None
        try:
            elements += self._elements.validate_json(b"[" + group + b"]")
        except ValidationError as error:
            raise ServiceProblem.from_validation_error(error, self._list, len(elements)) from None


class _Scanner:
    """A position in a JSON text that is moved over whole values without building them.

    Raises the problem ``limit-exceeded`` where one place holds more than ``max_values``.
    """

    def __init__(self, body: bytes, max_values: int) -> None:
        self.body = body
        self._path, self._values, self._max_values = "(body)", 0, max_values
        self.pos = 0
        self.last_end = 0
        self._since = perf_counter()

    def peek(self) -> bytes:
        """The byte at the position; empty at the end."""
        return self.body[self.pos : self.pos + 1]

    def begin_value(self, path: str) -> None:
        """Count the values from here on as those of another place."""
        self._path, self._values = path, 0

    def iterate_fields(self) -> Iterator[tuple[str | None, int]]:
        """The name of each field of the object that is the body, and where it starts.

        The position is then at the field's value, which the caller moves it over. The name None stands for
        a pause.
        """
        self._skip_blank()
        if self.peek() != b"{":
            raise build_field_problem(INVALID_REQUEST, "(body)", "send an object")
        self.pos += 1
        self._skip_blank()
        while self.peek() != b"}" or self.last_end:
            start = self.pos
            if self.peek() != b'"':
                raise self._build_not_json("a name in quotes")
            for _ in self.skip_value():
                yield None, start
            try:
                name = str(from_json(self.body[start : self.pos]))
            except ValueError:
                raise self._build_not_json("a name in quotes") from None
            self._skip_blank()
            self._take(b":")
            self._skip_blank()
            yield name, start
            self.last_end = self.pos
            self._skip_blank()
            if self.peek() == b"}":
                break
            self._take(b",")
            self._skip_blank()
        self.pos += 1
        self._skip_blank()
        if self.pos < len(self.body):
            raise self._build_not_json("the end")

    def iterate_elements(self) -> Iterator[int | None]:
        """Where each element of the list at the position starts; None for a pause.

        The caller moves the position over each element; ``last_end`` is the end of the last.
        """
        self.pos += 1
        self._skip_blank()
        if self.peek() == b"]":
            self.pos += 1
            return
        while True:
            yield self.pos
            self.last_end = self.pos
            self._skip_blank()
            if self.peek() == b"]":
                self.pos += 1
                return
            self._take(b",")
            self._skip_blank()
            if self._is_pause_due():
                yield None

    def skip_value(self) -> Steps:
        """Move over the value at the position."""
        first = self.peek()
        if first == b'"':
            yield from self._skip_string()
        elif first in (b"[", b"{"):
            yield from self._skip_nested()
        else:
            atom = _ATOM.match(self.body, self.pos)
            if atom is None:
                raise self._build_not_json("a value")
            self.pos = atom.end()

    def _skip_nested(self) -> Steps:
        depth = brackets = 0
        while True:
            found = _NESTED.search(self.body, self.pos, self.pos + AT_ONCE)
            if self._is_pause_due():
                yield
            self._count_values(self.pos, self.pos + AT_ONCE if found is None else found.start())
            if found is None:
                self.pos += AT_ONCE
                if self.pos >= len(self.body):
                    raise self._build_not_json("the end of a list or object")
                continue
            self.pos = found.end()
            character = found.group()
            if character == b'"':
                self.pos = found.start()
                yield from self._skip_string()
                continue
            brackets += 1
            if character != b"[":
                depth += 1 if character == b"{" else -1
            elif self._skip_numbers():
                brackets += 1
            else:
                depth += 1
            if depth == 0:
                return
            if depth > MAX_DEPTH:
                raise ServiceProblem(NOT_JSON, "The body is nested too deeply to be read as JSON.")
            if brackets > 2 * MAX_BRACKETS:
                raise build_field_problem(
                    LIMIT_EXCEEDED, "(body)", f"one value holds over {MAX_BRACKETS} lists and objects"
                )

    def _skip_numbers(self) -> bool:
        """Move over the rest of a list that holds no text, list or object, and ends soon; False for others.

        Looking for single bytes is many times as fast as looking for any bracket.
        """
        start, end = self.pos, self.body.find(b"]", self.pos, self.pos + AT_ONCE)
        if end < 0 or any(self.body.find(other, start, end) >= 0 for other in (b'"', b"[", b"{", b"}")):
            return False
        self._count_values(start, end)
        self.pos = end + 1
        return True

    def _count_values(self, start: int, end: int) -> None:
        """Count the values of a part of the body by their commas."""
        self._values += self.body.count(b",", start, end)
        if self._values > self._max_values:
            raise build_field_problem(
                LIMIT_EXCEEDED, self._path, f"over {self._max_values} values in one place"
            )

    def _skip_string(self) -> Steps:
        start = self.pos + 1
        end = self.body.find(b'"', start)
        if end >= 0:
            escape = self.body.find(b"\\", start, end)
            if escape < 0:
                self.pos = end + 1
                return
            self.pos = escape
            while True:
                found = _ESCAPED.match(self.body, self.pos)
                assert found is not None
                if self.body[found.end() : found.end() + 1] == b'"':
                    self.pos = found.end() + 1
                    return
                if found.end() == self.pos:
                    break
                self.pos = found.end()
                if self._is_pause_due():
                    yield
        raise self._build_not_json("the end of a text")

    def _skip_blank(self) -> None:
        blank = _BLANK.match(self.body, self.pos)
        assert blank is not None
        self.pos = blank.end()

    def _take(self, byte: bytes) -> None:
        if self.peek() != byte:
            raise self._build_not_json(f"'{byte.decode()}'")
        self.pos += 1

    def _is_pause_due(self) -> bool:
        now = perf_counter()
        if now - self._since < _STEP_SECONDS:
            return False
        self._since = now
        return True

    def _build_not_json(self, expected: str) -> ServiceProblem:
        at = min(self.pos, len(self.body))
        return ServiceProblem(NOT_JSON, f"The body is not JSON: {expected} is missing at byte {at}.")


def _list_element_types(annotation: Any) -> Iterator[Any]:
    """The types of the elements of a list, or of all lists among alternatives."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        yield get_args(annotation)[0]
    elif get_origin(annotation) in (Union, UnionType):
        for alternative in get_args(annotation):
            yield from _list_element_types(alternative)


def _validate(adapter: TypeAdapter[B], body: bytes) -> B:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise ServiceProblem.from_validation_error(error) from None
    except RecursionError:
        raise ServiceProblem(NOT_JSON, "The body is nested too deeply.") from None
