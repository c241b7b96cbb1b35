"""Requests of search and match: JSON, or raw float32 rows with the options in the query string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Generic, TypeVar

import orjson
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from api_schemas.http.decisions import (
    Body,
    MatchOptions,
    MatchQuery,
    MatchRequest,
    Reference,
    SearchOptions,
    SearchRequest,
)
from common.spans import SPANS
from index.items.stored_item import check_metadata
from service.errors.problems import (
    LIMIT_EXCEEDED,
    NOT_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    ServiceProblem,
    build_field_problem,
)
from service.errors.query_names import check_no_options
from service.http.bodies import (
    JSON,
    OCTETS,
    get_media_type,
    parse_float32_rows,
    read_body,
    read_json,
)
from service.http.filter_limits import check_filter
from service.http.json_reader import JsonReader
from service.http.resolve_references import (
    ResolvedQueries,
    check_count,
    check_k,
    prepare_queries,
    take_rows,
)
from service.models.loaded_model import LoadedModel
from service.settings import ServiceSettings
from service.state import ServiceState

O = TypeVar("O", SearchOptions, MatchOptions)  # noqa: E741
CACHED_QUERY_BYTES = 256
_READERS: dict[type[Body], JsonReader[Any]] = {
    SearchOptions: JsonReader(SearchRequest, "queries"),
    MatchOptions: JsonReader(MatchRequest, "queries"),
}


@dataclass(frozen=True)
class QueryRequest(Generic[O]):
    """A parsed search or match.

    Attributes:
        options: ``k``, the filter and so on.
        resolve: makes the queries' vectors, in a compute thread.
        count: of queries.
        is_light: whether a plain search of so many queries takes under a millisecond.
        queries: as they came; None for raw rows.
        started, parsed: when the request began and when it had been read, in seconds of ``perf_counter``.
    """

    options: O
    resolve: Callable[[], ResolvedQueries]
    count: int
    is_light: bool
    queries: Sequence[Reference] | None
    started: float
    parsed: float


async def read_queries(
    request: Request, options: type[O], model: LoadedModel, state: ServiceState, started: float
) -> QueryRequest[O]:
    """Read and check a request and encode its inputs; raises a problem that names the field."""
    media_type = get_media_type(request)
    given: O
    is_light = True
    queries: Sequence[Reference] | None = None
    if media_type == OCTETS:
        row_bytes = 4 * model.gallery.dim
        body = await read_body(request, lambda size: check_count(size // row_bytes, "body", state.settings))
        rows = parse_float32_rows(body, model.gallery.dim)
        query: bytes = request.scope["query_string"]
        # clients repeat themselves; long query strings are not kept
        parse = _parse_cached if len(query) <= CACHED_QUERY_BYTES else _parse_query_string
        given, count = parse(query, options), len(rows)
        _check_limits(given, count, "body", state.settings)
        resolve: Callable[[], ResolvedQueries] = lambda: take_rows(rows)  # noqa: E731
    elif media_type == JSON:
        check_no_options(request)
        body = await read_body(request)
        content = await read_json(request, _READERS[options], body, lambda limits: limits.max_queries)
        queries = content.queries
        given, count = content, len(queries)
        _check_limits(given, count, "queries", state.settings)
        _check_metadata(queries, state.settings)
        resolve, rows_of_queries = await prepare_queries(
            state.encoding, model, content.queries, state.settings
        )
        is_light = is_light and rows_of_queries == count
    else:
        raise ServiceProblem(
            UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type is '{media_type}'; this endpoint takes {JSON} or {OCTETS} (float32 rows).",
        )
    is_light = is_light and model.is_light(count)
    if SPANS.get() is not None:
        asked = {"limen.queries": count, "limen.k": given.k, "limen.filtered": given.filter is not None}
        request.scope["state"]["asked"] = asked
    return QueryRequest(given, resolve, count, is_light, queries, started, perf_counter())


def _check_limits(
    options: SearchOptions | MatchOptions, count: int, path: str, settings: ServiceSettings
) -> None:
    check_count(count, path, settings)
    check_k(options.k, settings)
    if isinstance(options, MatchOptions):
        check_k(options.candidates, settings, "candidates")
    elif options.k * options.group_size > settings.max_k:
        raise build_field_problem(
            LIMIT_EXCEEDED,
            "group_size",
            f"{options.k} labels (k) of {options.group_size} items given, at most {settings.max_k} items are "
            "answered for a query",
        )
    check_filter(options.filter, settings)


def _check_metadata(queries: Sequence[Reference], settings: ServiceSettings) -> None:
    """Raises InputError for metadata of a query that no item may have."""
    for number, query in enumerate(queries):
        if isinstance(query, MatchQuery) and query.metadata:
            check_metadata(f"queries.{number}.metadata", query.metadata, settings.metadata_bounds)


def _parse_query_string(query: bytes, options: type[O]) -> O:
    given = dict(QueryParams(query))
    structured: dict[str, object] = {}
    if "filter" in given:
        structured["filter"] = parse_filter(given.pop("filter"))
    if "include" in given:
        structured["include"] = [part for part in given.pop("include").split(",") if part]
    try:
        parsed = options.model_validate_strings(given)
        # validated once more, so that filter and include are checked as in a JSON body
        return options.model_validate(parsed.model_dump() | structured) if structured else parsed
    except ValidationError as error:
        raise ServiceProblem.from_validation_error(error) from None


_parse_cached = lru_cache(maxsize=256)(_parse_query_string)


def parse_filter(text: str) -> object:
    """A filter of a URL; raises the problem ``not-json``."""
    try:
        return orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError as error:
        raise build_field_problem(NOT_JSON, "filter", f"the filter is not JSON ({error})") from None
