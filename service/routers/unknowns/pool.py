"""``/v1/unknowns``: the kept queries, read, searched and erased."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import JsonValue

from api_schemas.http.decisions import ItemId
from api_schemas.http.unknowns import (
    DeleteUnknownsRequest,
    DeleteUnknownsResponse,
    Instant,
    Unknown,
    UnknownPage,
    UnknownSearchRequest,
    UnknownSearchResponse,
    UnknownStatus,
)
from index.store.kept_queries import PoolFilter
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import INVALID_REQUEST, NOT_FOUND, ServiceProblem, build_field_problem
from service.http.bodies import build_body_reader, write_json_response
from service.http.filter_limits import check_filter
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.http.query_answers import check_answer
from service.http.query_requests import parse_filter
from service.http.resolve_references import check_k, prepare_references
from service.http.thumbnail_responses import build_thumbnail_response, describe_thumbnail
from service.state import ActiveModel, CurrentState, order_write, write
from service.unknowns.pool_search import list_matching, page_pool, search_pool
from service.unknowns.present import write_unknown

router = APIRouter(tags=["unknowns"])
UnknownPath = Annotated[str, Path(min_length=1, max_length=64, pattern="^[a-z0-9-]+$")]
_read_deletion = build_body_reader(DeleteUnknownsRequest, "ids", lambda limits: limits.max_items)


@router.get(
    "/v1/unknowns",
    summary="Page through kept queries",
    response_model=UnknownPage,
    responses=describe_problems(*READ_STATUSES, 400, 409),
)
async def page(
    model: ActiveModel,
    state: CurrentState,
    status: UnknownStatus | None = None,
    decision: Annotated[str | None, Query(pattern="^(match|unknown)$")] = None,
    group: Annotated[str | None, Query(max_length=64, pattern="^[a-z0-9-]*$")] = None,
    grouped: bool | None = None,
    offered: ItemId | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    filter: Annotated[str | None, Query(max_length=65_536)] = None,  # noqa: A002 - the name of the API
    cursor: Annotated[str | None, Query(max_length=64, pattern="^[a-z0-9-]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Kept queries, newest first. `filter` is a condition over the queries' metadata, and over `label`, the
    class of the best candidate, as JSON.
    """
    live = model.get_live_gallery()
    await state.unknowns.flush()
    condition = None if filter is None else _read_filter(filter)
    check_filter(condition, state.settings)
    which = PoolFilter(
        status=status,
        decision=decision,
        group=group,
        grouped=grouped,
        offered=offered,
        since=_to_seconds(since),
        until=_to_seconds(until),
        before=cursor,
    )
    kinds = state.unknowns.find_fields(live, model.model_hash)
    queries, next_cursor = await state.looking.run(
        lambda: page_pool(model, which, condition, {} if condition is None else kinds.kinds, limit)
    )
    return write_json_response(
        {"unknowns": [write_unknown(query) for query in queries], "next_cursor": next_cursor}
    )


@router.get(
    "/v1/unknowns/{unknown_id}",
    summary="Read a kept query",
    response_model=Unknown,
    responses=describe_problems(*READ_STATUSES, 404, 409),
)
async def read(unknown_id: UnknownPath, model: ActiveModel, state: CurrentState) -> Response:
    """The query with its unit vector."""
    live = model.get_live_gallery()
    await state.unknowns.flush()
    query = await state.looking.run(lambda: live.unknowns.get(unknown_id))
    if query is None:
        raise _build_missing(unknown_id)
    return write_json_response(write_unknown(query, with_vector=True))


@router.get(
    "/v1/unknowns/{unknown_id}/thumbnail",
    summary="Read the thumbnail of a kept query",
    response_class=Response,
    responses={
        **describe_thumbnail("query"),
        **describe_problems(*READ_STATUSES, 404, 409),
    },
)
async def thumbnail(
    request: Request, unknown_id: UnknownPath, model: ActiveModel, state: CurrentState
) -> Response:
    """The small picture that was kept of the query, or the first 500 characters of its text."""
    live = model.get_live_gallery()
    content = await state.looking.run(lambda: live.unknowns.read_thumbnail(unknown_id))
    if content is None:
        raise ServiceProblem(
            NOT_FOUND,
            f"No thumbnail is kept of a query '{unknown_id}': they are kept where LIMEN_THUMBNAILS is set "
            "and the query was an input.",
        )
    return build_thumbnail_response(request, content)


@router.post(
    "/v1/unknowns/search",
    summary="Was this one here before?",
    response_model=UnknownSearchResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(
        UnknownSearchRequest, {"by vector": {"queries": [{"vector": [0.6, 0.8]}], "k": 5}}
    ),
)
async def search(
    body: Annotated[UnknownSearchRequest, Depends(build_body_reader(UnknownSearchRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """The `k` kept queries that are the most similar to each query, with the times they came. Compares with
    all of them, exactly. `same` is what the active 1:1 operating point says of the two.
    """
    model.get_live_gallery()
    check_k(body.k, state.settings)
    check_answer(len(body.queries), body.k, 0, model, state.settings)
    await state.unknowns.flush()
    resolve = await prepare_references(state.encoding, model, body.queries, "queries.{}".format)
    which = PoolFilter(status=body.status, since=_to_seconds(body.since), until=_to_seconds(body.until))
    results = await state.looking.run(lambda: search_pool(model, resolve().vectors, body.k, which))
    return write_json_response(
        {
            "results": [
                {
                    "hits": [
                        {
                            "unknown": write_unknown(hit.query),
                            "similarity": hit.similarity,
                            "score": hit.score,
                            "same": hit.same,
                        }
                        for hit in hits
                    ]
                }
                for hits in results
            ]
        }
    )


@router.delete(
    "/v1/unknowns/{unknown_id}",
    summary="Erase a kept query",
    response_model=DeleteUnknownsResponse,
    responses=describe_problems(*READ_STATUSES, 404, 409),
    dependencies=NEEDS_WRITE,
)
async def delete(
    request: Request, unknown_id: UnknownPath, model: ActiveModel, state: CurrentState
) -> Response:
    """Erases it with its vector, metadata and thumbnail. An item that it became stays."""
    live = model.get_live_gallery()
    await state.unknowns.flush()
    order = order_write(request, "unknowns.delete", unknown=unknown_id)
    which = PoolFilter(ids=[unknown_id])
    deleted = await write(request, state, order, lambda: live.unknowns.delete(which, order))
    if not deleted:
        raise _build_missing(unknown_id)
    return write_json_response({"deleted": deleted})


@router.post(
    "/v1/unknowns/delete",
    summary="Erase kept queries by ids or conditions",
    response_model=DeleteUnknownsResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(
        DeleteUnknownsRequest,
        {"all that were dropped": {"status": "dropped"}, "of a camera": {"filter": {"camera": 3}}},
    ),
    dependencies=NEEDS_WRITE,
)
async def delete_some(
    request: Request,
    body: Annotated[DeleteUnknownsRequest, Depends(_read_deletion)],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Erases every kept query that all of the conditions hold for; unknown ids are ignored."""
    live = model.get_live_gallery()
    await state.unknowns.flush()
    check_filter(body.filter, state.settings)
    which = PoolFilter(
        ids=body.ids,
        status=body.status,
        group=body.group,
        since=_to_seconds(body.since),
        until=_to_seconds(body.until),
    )
    given = body.model_dump(mode="json", exclude_none=True, exclude={"ids"})
    order = order_write(request, "unknowns.delete", **given)
    if body.filter is not None:
        condition, fields = body.filter, state.unknowns.find_fields(live, model.model_hash)
        ids = await state.looking.run(lambda: list_matching(model, which, condition, fields.kinds))
        which = which._replace(ids=ids)
    deleted = await write(request, state, order, lambda: live.unknowns.delete(which, order))
    return write_json_response({"deleted": deleted})


def _to_seconds(at: datetime | None) -> float | None:
    """A time as seconds since 1970; one without a zone is in UTC."""
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _read_filter(text: str) -> dict[str, JsonValue]:
    condition = parse_filter(text)
    if not isinstance(condition, dict):
        raise build_field_problem(INVALID_REQUEST, "filter", "the filter must be an object")
    return condition


def _build_missing(unknown_id: str) -> ServiceProblem:
    return ServiceProblem(NOT_FOUND, f"No kept query has the id '{unknown_id}'.")
