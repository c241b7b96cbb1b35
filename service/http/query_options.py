"""Requests that come either as JSON or as raw float32 rows with their options in the query string."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import orjson
from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

from api_schemas.http.decisions import Body, MatchOptions, MatchRequest, SearchOptions, SearchRequest
from service.errors.problems import NOT_JSON, UNSUPPORTED_MEDIA_TYPE, ServiceProblem
from service.http.bodies import OCTETS, media_type, parse_float32_rows, parsed, read_body
from service.http.resolve_queries import (
    ResolvedQueries,
    at,
    check_count,
    check_filter,
    check_k,
    encoded,
    queries,
    resolve,
    take_rows,
)
from service.models.loaded_model import LoadedModel
from service.settings import ServiceSettings
from service.state import ServiceState

O = TypeVar("O", SearchOptions, MatchOptions)  # noqa: E741
REMEMBERED_BYTES = 256
_BODIES: dict[type[Body], TypeAdapter[Any]] = {
    SearchOptions: TypeAdapter(SearchRequest),
    MatchOptions: TypeAdapter(MatchRequest),
}


@dataclass(frozen=True)
class Asked(Generic[O]):
    """Options, and a function that makes the unit rows; ``light`` says that little is to be computed."""

    options: O
    resolve: Callable[[], ResolvedQueries]
    light: bool


async def asked(request: Request, options: type[O], served: LoadedModel, state: ServiceState) -> Asked[O]:
    """Read and check a request, encode its inputs; raises a problem that names the field."""
    body = await read_body(request)
    kind = media_type(request)
    if kind == OCTETS:
        rows = parse_float32_rows(body, served.gallery.dim)
        query: bytes = request.scope["query_string"]
        # clients repeat themselves; what is long is read anew, so that little is kept
        chosen = (_remembered if len(query) <= REMEMBERED_BYTES else _from_query)(query, options)
        _check(chosen, len(rows), "body", state.settings)
        return Asked(chosen, lambda: take_rows(rows), served.is_light(len(rows)))
    if kind == "application/json":
        content = parsed(_BODIES[options], body)
        asking = content.queries
        _check(content, len(asking), "queries", state.settings)
        vectors = await encoded(state.encoding, served, asking, queries)
        return Asked(content, lambda: resolve(served, asking, queries, vectors), served.is_light(len(asking)))
    raise ServiceProblem(
        UNSUPPORTED_MEDIA_TYPE,
        f"Content-Type is '{kind}'; this endpoint takes application/json or {OCTETS} (float32 rows).",
    )


def _check(options: SearchOptions | MatchOptions, count: int, where: str, settings: ServiceSettings) -> None:
    check_count(count, where, settings)
    check_k(options.k, settings)
    check_filter(options.filter, settings)


def _from_query(query: bytes, options: type[O]) -> O:
    given = dict(QueryParams(query))
    structured: dict[str, object] = {}
    if "filter" in given:
        structured["filter"] = _json(given.pop("filter"))
    if "include" in given:
        structured["include"] = [part for part in given.pop("include").split(",") if part]
    try:
        chosen = options.model_validate_strings(given)
        # through the model once more: what is not a plain number or word is checked as in a body
        return options.model_validate(chosen.model_dump() | structured) if structured else chosen
    except ValidationError as error:
        raise ServiceProblem.from_validation_error(error) from None


_remembered = lru_cache(maxsize=256)(_from_query)


def _json(text: str) -> object:
    try:
        return orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError as error:
        raise at(NOT_JSON, "filter", f"the filter is not JSON ({error})") from None
