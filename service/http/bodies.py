"""Reading request bodies (validated JSON or raw float32 rows) and writing JSON responses."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from api_schemas.base import Schema
from api_schemas.http.decisions import MOST_ELEMENTS
from common.array_types import Float32s
from service.errors.problems import UNSUPPORTED_MEDIA_TYPE, WRONG_DIMENSION, ServiceProblem
from service.http.json_reader import MAX_VALUES, JsonReader
from service.settings import ServiceSettings

JSON, OCTETS = "application/json", "application/octet-stream"
B = TypeVar("B", bound=Schema)
_GZIP = b"\x1f\x8b"
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF8 = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
_CHARSET = re.compile(r"(?i)charset\s*=\s*\"?([^\s;\"]+)")


async def read_body(request: Request, check_size: Callable[[int], None] = lambda size: None) -> bytes:
    """The whole body; the middleware bounds its size, its duration and its rate.

    ``check_size`` raises a problem for a body of so many bytes: before any of it is read, where its length is
    announced.
    """
    check_size(int(get_header(request, b"content-length") or 0))
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        check_size(size)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def get_header(request: Request, name: bytes) -> str:
    """The first header of a name in small letters; empty if there is none.

    ``request.headers`` takes two to five times as long, and a search looks at five.
    """
    for given, value in request.scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return ""


def get_media_type(request: Request) -> str:
    """The media type of the body without its parameters, in lower case."""
    return get_header(request, b"content-type").partition(";")[0].strip().lower()


def accepts_octets(request: Request) -> bool:
    """Whether the client asks for a binary answer."""
    return OCTETS in get_header(request, b"accept")


def build_body_reader(
    model: type[B],
    elements: str | None = None,
    get_limit: Callable[[ServiceSettings], int] = lambda settings: MOST_ELEMENTS,
    *,
    max_values: int = MAX_VALUES,
) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads a JSON body of this model, straight from bytes to validated values.

    Args:
        elements: the field that is the model's long list, if it has one.
        get_limit: the elements that it may have.
        max_values: values in one element, or in a body without such a list.
    """
    reader = JsonReader(model, elements, max_values)

    async def read(request: Request) -> B:
        if get_media_type(request) != JSON:
            raise ServiceProblem(
                UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is '{get_media_type(request)}'; this endpoint takes {JSON}.",
            )
        return await read_json(request, reader, await read_body(request), get_limit)

    return read


async def read_json(
    request: Request, reader: JsonReader[B], body: bytes, get_limit: Callable[[ServiceSettings], int]
) -> B:
    """Validated values from the JSON body of a request; raises a problem that names the offending fields."""
    settings: ServiceSettings = request.app.state.settings
    turn: asyncio.Lock = request.app.state.limen.reading
    return await reader.read(_check_plain(request, body), get_limit(settings), turn, settings.deadline)


def _check_plain(request: Request, body: bytes) -> bytes:
    """The body without a byte order mark; raises a problem unless it is UTF-8 that is not compressed."""
    encoding = get_header(request, b"content-encoding").strip().lower() or "identity"
    if encoding != "identity" or body.startswith(_GZIP):
        raise ServiceProblem(
            UNSUPPORTED_MEDIA_TYPE,
            f"The body is compressed ({'gzip' if encoding == 'identity' else encoding[:40]}): send it as it "
            "is, without Content-Encoding.",
        )
    charset = _CHARSET.search(get_header(request, b"content-type"))
    named = "" if charset is None else charset[1].lower()
    if named not in _UTF8 or body.startswith(_OTHER_MARKS) or 0 in body[:4]:
        raise ServiceProblem(
            UNSUPPORTED_MEDIA_TYPE,
            f"The body is JSON in {'UTF-16 or UTF-32' if named in _UTF8 else named[:40]}: send it in UTF-8.",
        )
    return body.removeprefix(codecs.BOM_UTF8)


def parse_float32_rows(body: bytes, dimension: int) -> Float32s:
    """Raw little-endian float32 rows [n, dimension] of a body; the search validates their values."""
    row_bytes = 4 * dimension
    if not body or len(body) % row_bytes:
        raise ServiceProblem(
            WRONG_DIMENSION,
            f"The body has {len(body)} bytes; it must hold whole rows of {dimension} little-endian float32 "
            f"({row_bytes} bytes each), at least one.",
        )
    return np.frombuffer(body, dtype="<f4").reshape(-1, dimension).astype(np.float32, copy=False)


def write_json_response(content: Any, status: int = 200) -> Response:
    """A JSON response, written by orjson; it may hold models, numpy arrays and numpy scalars."""
    return Response(write_json(content), status_code=status, media_type=JSON)


def write_json(content: Any) -> bytes:
    """JSON, written by orjson; it may hold models, numpy arrays and numpy scalars."""
    return orjson.dumps(content, default=_dump_model, option=orjson.OPT_SERIALIZE_NUMPY)


def _dump_model(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
