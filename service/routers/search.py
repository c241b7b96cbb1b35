"""``/v1/search``: the most similar items."""

from __future__ import annotations

from itertools import groupby
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.binary_search import describe_layout, write_search_arrays
from api_schemas.http.decisions import SearchOptions, SearchRequest, SearchResponse
from index.search.gallery_view import SearchHit, read_metadata, sort_by_score
from service.auth.api_keys import check_key
from service.errors.problems import INVALID_REQUEST, build_field_problem
from service.http.bodies import OCTETS, accepts_octets
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY_STATUSES, describe_body, describe_octets, describe_problems
from service.http.query_answers import answer_queries, check_answer, write_results
from service.http.query_requests import read_queries
from service.http.resolve_references import ResolvedQueries
from service.models.loaded_model import LoadedModel
from service.state import get_deciding_model, get_state

router = APIRouter(tags=["decide"], route_class=FastRoute)
_EXAMPLES = {
    "by id": {"queries": [{"id": "0"}], "k": 3},
    "by vector, filtered": {"queries": [{"vector": [0.6, 0.8]}], "k": 3, "filter": {"label": {"$ne": "7"}}},
    "five labels with two items each": {
        "queries": [{"id": "0"}],
        "k": 5,
        "group_by": "label",
        "group_size": 2,
    },
}


@router.post(
    "/v1/search",
    summary="Find the most similar items",
    response_model=SearchResponse,
    responses={**describe_problems(*BODY_STATUSES), 200: {"content": describe_octets(describe_layout())}},
    openapi_extra=describe_body(SearchRequest, _EXAMPLES, raw_rows=True),
)
async def search(request: Request) -> Response:
    """The `k` most similar items for each query, best first, ties by id. A query by id leaves itself out.

    Queries are vectors, encoder inputs or ids of stored items. Similarities are computed exactly, from the
    stored float32 vectors, whatever the kind of index. With `Content-Type: application/octet-stream` the body
    is raw little-endian float32 rows and the options are in the query string. With
    `Accept: application/octet-stream` the answer is binary and has no metadata.

    With `group_by: "label"` the answer holds the `k` nearest labels, each with up to `group_size` items.
    """
    started = perf_counter()
    check_key(request, "read")
    state, model = get_state(request), get_deciding_model(request)
    queries = await read_queries(request, SearchOptions, model, state, started)
    options, binary = queries.options, accepts_octets(request)
    if binary and "vector" in options.include:
        raise build_field_problem(INVALID_REQUEST, "include", "binary answers carry no vectors: ask for JSON")

    width = model.gallery.dim if "vector" in options.include else 0
    check_answer(queries.count, options.k * options.group_size, width, model, state.settings)

    def write(results: list[list[SearchHit]], took_ms: float) -> Response:
        if binary:
            return Response(write_search_arrays(results, model.model_hash, took_ms), media_type=OCTETS)
        written = ({"hits": _write_hits(hits, model, options)} for hits in results)
        return write_results(written, model, took_ms, state.settings)

    return await answer_queries(
        state,
        queries,
        lambda resolved: _search(model, resolved, options),
        write,
        light=not options.exact and options.filter is None and options.group_by is None,
    )


def _search(model: LoadedModel, queries: ResolvedQueries, options: SearchOptions) -> list[list[SearchHit]]:
    results = model.gallery.search(
        queries.vectors,
        options.k,
        filter=options.filter,
        exact=options.exact,
        min_score=options.min_score,
        exclude_ids=queries.excluded,
        group_by=options.group_by,
        group_size=options.group_size,
    )
    if options.rank_by == "score":
        sort = sort_by_score if options.group_by is None else _sort_groups
        results = [sort(hits) for hits in results]
    return results


def _sort_groups(hits: list[SearchHit]) -> list[SearchHit]:
    """The hits of each label by their score, the label with the best score first."""
    groups = [sort_by_score(group) for _, group in groupby(hits, key=lambda hit: hit.label)]
    groups.sort(key=lambda group: (-group[0].score, group[0].id))
    return [hit for group in groups for hit in group]


def _write_hits(hits: list[SearchHit], model: LoadedModel, options: SearchOptions) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = [
        {"id": item_id, "similarity": similarity, "score": score, "label": label}
        for item_id, label, similarity, score, _, _ in hits
    ]
    if "metadata" in options.include:
        for entry, metadata in zip(written, read_metadata(hits), strict=True):
            entry["metadata"] = metadata
    if "vector" in options.include:
        view = model.gallery.view
        for entry, hit in zip(written, hits, strict=True):
            entry["vector"] = view.get_hit_vector(hit)
    return written
