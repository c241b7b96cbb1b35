"""A request of the API, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import numpy as np
import orjson

from api_schemas.base import Schema
from common.tensors import is_tensor, read_tensor

T = TypeVar("T")
S = TypeVar("S", bound=Schema)
JSON, OCTETS = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the function that reads the body of its answer."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


def quote_segment(segment: str) -> str:
    """Any text as one segment of a path: with no slash in it, and never one that means "here" or "up"."""
    quoted = quote(segment, safe="")
    return quoted.replace(".", "%2E") if segment in {".", ".."} else quoted


def get(path: str, answer: type[S], **params: Any) -> Call[S]:
    """A GET with these parameters, but those that are None."""
    return Call("GET", path, answer.model_validate_json, drop_none(params))


def send(method: str, path: str, answer: type[S], body: object = None) -> Call[S]:
    """A request with a JSON body, or without one."""
    if body is None:
        return Call(method, path, answer.model_validate_json)
    return Call(
        method, path, answer.model_validate_json, headers={"Content-Type": JSON}, content=write_json(body)
    )


def drop_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def write_json(body: object) -> bytes:
    """A body as JSON; it may hold arrays and tensors."""
    return orjson.dumps(body, _write_tensor, orjson.OPT_SERIALIZE_NUMPY)


def _write_tensor(value: object) -> Any:
    if is_tensor(value):
        return np.ascontiguousarray(read_tensor(value))
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
