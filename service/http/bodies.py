"""Request bodies: JSON checked by its model, or raw float32 rows; and answers written by orjson."""

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

OCTETS = "application/octet-stream"
B = TypeVar("B", bound=Schema)


async def read_body(request: Request) -> bytes:
    """The whole body; its size is bounded by the envelope, its time by the deadline."""
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


def media_type(request: Request) -> str:
    """The body's type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def build_body_reader(model: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads a body of this model, straight from bytes to checked values."""
    adapter = TypeAdapter(model)

    async def read(request: Request) -> B:
        if media_type(request) != "application/json":
            raise ServiceProblem(
                UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is '{media_type(request)}'; this endpoint takes application/json.",
            )
        return parsed(adapter, await read_body(request))

    return read


def parsed(adapter: TypeAdapter[B], body: bytes) -> B:
    """A checked body from JSON bytes; raises the problem that says what is wrong with it."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise ServiceProblem.from_validation_error(error) from None
    except RecursionError:
        raise ServiceProblem(NOT_JSON, "The body is nested too deeply.") from None


def parse_float32_rows(body: bytes, dimension: int) -> Float32s:
    """Raw little-endian float32 rows [n, dimension] of a body; they are checked later, with all others."""
    row = 4 * dimension
    if not body or len(body) % row:
        raise ServiceProblem(
            WRONG_DIMENSION,
            f"The body has {len(body)} bytes; it must hold whole rows of {dimension} little-endian float32 "
            f"({row} bytes each), at least one.",
        )
    return np.frombuffer(body, dtype="<f4").reshape(-1, dimension).astype(np.float32, copy=False)


def write_json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer by orjson; models, numpy arrays and scalars inside are fine."""
    return Response(
        orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
