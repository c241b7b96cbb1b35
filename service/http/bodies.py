"""Reading request bodies (validated JSON or raw float32 rows) and writing JSON responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from api_schemas.base import Schema
from common.array_types import Float32s
from service.errors.problems import (
    BODY_TIMEOUT,
    NOT_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    WRONG_DIMENSION,
    ServiceProblem,
)

JSON, OCTETS = "application/json", "application/octet-stream"
B = TypeVar("B", bound=Schema)


async def read_body(request: Request) -> bytes:
    """The whole body; the middleware bounds its size, the deadline its duration."""
    deadline: float = request.app.state.settings.deadline
    parts: list[bytes] = []
    more = True
    try:
        async with asyncio.timeout(deadline):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
            return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise ServiceProblem(BODY_TIMEOUT, f"The body did not arrive within {deadline:g} s.") from None


def get_media_type(request: Request) -> str:
    """The media type of the body without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def accepts_octets(request: Request) -> bool:
    """Whether the client asks for a binary answer."""
    return OCTETS in request.headers.get("accept", "")


def build_body_reader(model: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads a JSON body of this model, straight from bytes to validated values."""
    adapter = TypeAdapter(model)

    async def read(request: Request) -> B:
        if get_media_type(request) != JSON:
            raise ServiceProblem(
                UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is '{get_media_type(request)}'; this endpoint takes {JSON}.",
            )
        return parse_json(adapter, await read_body(request))

    return read


def parse_json(adapter: TypeAdapter[B], body: bytes) -> B:
    """Validated values from JSON bytes; raises a problem that names the offending fields."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise ServiceProblem.from_validation_error(error) from None
    except RecursionError:
        raise ServiceProblem(NOT_JSON, "The body is nested too deeply.") from None


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
    return Response(
        orjson.dumps(content, default=_dump_model, option=orjson.OPT_SERIALIZE_NUMPY),
        status_code=status,
        media_type=JSON,
    )


def _dump_model(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
