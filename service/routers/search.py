"""``/v1/search``: the most alike items."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.binary_search import packed
from api_schemas.http.decisions import Include, SearchOptions, SearchRequest, SearchResponse
from index.gallery.gallery import Hit
from service.auth.api_keys import allow
from service.errors.problems import INVALID_REQUEST
from service.http.bodies import OCTETS, write_json_response
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY, problems, takes
from service.http.query_options import asked
from service.http.resolve_queries import ResolvedQueries, asking, at
from service.http.timed_response import answer
from service.models.loaded_model import LoadedModel
from service.state import active, state_of

router = APIRouter(tags=["decide"], route_class=FastRoute)
_EXAMPLES = {
    "by id": {"queries": [{"id": "0"}], "k": 3},
    "by vector, filtered": {"queries": [{"vector": [0.6, 0.8]}], "k": 3, "filter": {"label": {"$ne": "7"}}},
}


BINARY_ANSWER: dict[str, Any] = {
    OCTETS: {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": "LIMENSR1: numbers of queries q, hits h and labels l, uint32 each; took_ms, "
            "float32; model hash, 32 bytes; then uint32 [q] hits of each query, float32 [h] similarities, "
            "float32 [h] scores, uint32 [h] label numbers, uint32 [h] ends of ids, uint32 [l] ends of "
            "labels; then all ids and all labels in UTF-8. Little-endian.",
        }
    }
}


@router.post(
    "/v1/search",
    summary="Find the most alike items",
    response_model=SearchResponse,
    responses={**problems(*BODY), 200: {"content": BINARY_ANSWER}},
    openapi_extra=takes(SearchRequest, _EXAMPLES, raw_rows=True),
)
async def search(request: Request) -> Response:
    """The `k` most alike items for each query, best first, ties by id. A query by id leaves itself out.

    Queries are vectors, encoder inputs or ids of stored items. Similarities are computed pair by pair
    from the stored float32 vectors, whatever the index is. With `Content-Type: application/octet-stream`
    the body is raw little-endian float32 rows and the options are in the query string. With
    `Accept: application/octet-stream` the answer is binary, without metadata; docs/serving.md has the layout.
    """
    start = perf_counter()
    allow(request, "read")
    state, served = state_of(request), active(request)
    what = await asked(request, SearchOptions, served, state)
    binary = OCTETS in request.headers.get("accept", "")
    if binary and "vector" in what.options.include:
        raise at(INVALID_REQUEST, "include", "binary answers carry no vectors: ask for JSON")
    parsed = perf_counter()

    def find(queries: ResolvedQueries) -> list[list[Hit]]:
        return _find(served, queries, what.options)

    def write(found: list[list[Hit]], took_ms: float) -> Response:
        if binary:
            return Response(packed(found, served.model_hash, took_ms), media_type=OCTETS)
        results = [{"hits": _shown(hits, served, what.options.include)} for hits in found]
        return write_json_response({"results": results, "model_hash": served.model_hash, "took_ms": took_ms})

    return await state.compute.run(
        lambda: answer(what.resolve, find, write, state.drift, start, parsed),
        light=what.light and not what.options.exact and what.options.filter is None,
    )


def _find(served: LoadedModel, queries: ResolvedQueries, options: SearchOptions) -> list[list[Hit]]:
    found = asking(
        queries,
        lambda: served.gallery.search(
            queries.vectors,
            options.k,
            filter=options.filter,
            exact=options.exact,
            min_score=options.min_score,
            exclude_ids=queries.excluded,
        ),
    )
    if options.rank_by == "score":
        found = [sorted(hits, key=lambda hit: (-hit.score, hit.id)) for hits in found]
    return found


def _shown(hits: list[Hit], served: LoadedModel, include: list[Include]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]]
    if "metadata" in include:
        shown = [
            {
                "id": item_id,
                "similarity": similarity,
                "score": score,
                "label": label,
                "metadata": items.metadata_of(row),
            }
            for item_id, label, similarity, score, row, items in hits
        ]
    else:
        shown = [
            {"id": item_id, "similarity": similarity, "score": score, "label": label}
            for item_id, label, similarity, score, _, _ in hits
        ]
    if "vector" in include:
        for one, hit in zip(shown, hits, strict=True):
            one["vector"] = served.gallery.vector(hit.id)
    return shown
