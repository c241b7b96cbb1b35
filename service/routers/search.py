"""``/v1/search``: the most alike items."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http import Include, SearchOptions, SearchRequest, SearchResponse
from index.gallery import Hit
from service import metrics
from service.bodies import json_response
from service.direct import DirectRoute
from service.openapi import BODY, problems, takes
from service.options import asked
from service.security import allow
from service.served import Served
from service.state import active, state_of

router = APIRouter(tags=["decide"], route_class=DirectRoute)
_EXAMPLES = {
    "by id": {"queries": [{"id": "0"}], "k": 3},
    "by vector, filtered": {"queries": [{"vector": [0.6, 0.8]}], "k": 3, "filter": {"label": {"$ne": "7"}}},
}


@router.post(
    "/v1/search",
    summary="Find the most alike items",
    response_model=SearchResponse,
    responses=problems(*BODY),
    openapi_extra=takes(SearchRequest, _EXAMPLES, raw_rows=True),
)
async def search(request: Request) -> Response:
    """The `k` most alike items for each query, best first, ties by id. A query by id leaves itself out.

    Queries are vectors, encoder inputs or ids of stored items. Similarities are computed pair by pair
    from the stored float32 vectors, whatever the index is. With `Content-Type: application/octet-stream`
    the body is raw little-endian float32 rows and the options are in the query string.
    """
    start = perf_counter()
    allow(request, "read")
    state, served = state_of(request), active(request)
    what = await asked(request, SearchOptions, served, state.settings)
    parsed = perf_counter()
    found = await state.compute.run(
        lambda: _find(served, what.resolve, what.options),
        light=what.light and not what.options.exact and what.options.filter is None,
    )
    searched = perf_counter()
    answer = json_response(
        {
            "results": found,
            "model_hash": served.model_hash,
            "took_ms": round((searched - start) * 1000, 3),
        }
    )
    metrics.observe_stages(
        parse=parsed - start, search=searched - parsed, serialize=perf_counter() - searched
    )
    return answer


def _find(served: Served, resolve: Any, options: SearchOptions) -> list[dict[str, Any]]:
    queries = resolve()
    found = served.gallery.search(
        queries.vectors,
        options.k,
        filter=options.filter,
        exact=options.exact,
        min_score=options.min_score,
        exclude_ids=queries.excluded,
    )
    if options.rank_by == "score":
        found = [sorted(hits, key=lambda hit: (-hit.score, hit.id)) for hits in found]
    return [{"hits": [_hit(hit, served, options.include) for hit in hits]} for hits in found]


def _hit(hit: Hit, served: Served, include: list[Include]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": hit.id,
        "similarity": hit.similarity,
        "score": hit.score,
        "label": hit.label,
    }
    if "metadata" in include:
        shown["metadata"] = hit.metadata
    if "vector" in include:
        shown["vector"] = served.gallery.vector(hit.id)
    return shown
