"""``/v1/match``: who is this, or is it unknown?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.decisions import MatchOptions, MatchRequest, MatchResponse
from api_schemas.operating_point import OperatingPoint
from index.gallery.gallery import Match
from service.auth.api_keys import allow
from service.auth.decision_tokens import DecisionSigner, SignedDecision, now
from service.http.bodies import write_json_response
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY, problems, takes
from service.http.query_options import asked
from service.http.resolve_queries import ResolvedQueries, asking
from service.http.timed_response import answer
from service.models.loaded_model import LoadedModel
from service.state import active, state_of
from service.telemetry import prometheus

router = APIRouter(tags=["decide"], route_class=FastRoute)
_EXAMPLES = {"by id": {"queries": [{"id": "0"}]}, "by vector": {"queries": [{"vector": [0.6, 0.8]}], "k": 50}}


@router.post(
    "/v1/match",
    summary="Say who it is, or unknown",
    response_model=MatchResponse,
    responses=problems(*BODY, 409),
    openapi_extra=takes(MatchRequest, _EXAMPLES, raw_rows=True),
)
async def match(request: Request) -> Response:
    """One decision a query by the active `fpir` operating point: `match` iff score >= threshold.

    The best candidate is given even when the decision is `unknown`. `margin` is the distance to the best
    candidate of another label. `beyond_proof` is true once the gallery has over 1.1 x the items that the
    point is proven for. Takes raw float32 rows like `/v1/search`.

    A point calibrated for `mean_of_class` scores a class as the mean over all its items (that pass the
    filter); the classes looked at are those of the `k` nearest items.
    """
    start = perf_counter()
    allow(request, "read")
    state, served = state_of(request), active(request)
    point = served.get_deciding_point("match")
    what = await asked(request, MatchOptions, served, state)
    parsed = perf_counter()

    def find(queries: ResolvedQueries) -> list[dict[str, Any]]:
        return _decide(served, point, state.signer, queries, what.options)

    def write(results: list[dict[str, Any]], took_ms: float) -> Response:
        return write_json_response({"results": results, "model_hash": served.model_hash, "took_ms": took_ms})

    return await state.compute.run(
        lambda: answer(what.resolve, find, write, state.drift, start, parsed),
        light=what.light and what.options.filter is None and point.target.aggregate == "nearest",
    )


def _decide(
    served: LoadedModel,
    point: OperatingPoint,
    signer: DecisionSigner,
    queries: ResolvedQueries,
    options: MatchOptions,
) -> list[dict[str, Any]]:
    matches = asking(
        queries,
        lambda: served.gallery.match(
            queries.vectors,
            k=options.k,
            filter=options.filter,
            aggregate=options.aggregate,
            exclude_ids=queries.excluded,
        ),
    )
    return [
        _result(served, point, signer, one, item_id)
        for one, item_id in zip(matches, queries.ids, strict=True)
    ]


def _result(
    served: LoadedModel, point: OperatingPoint, signer: DecisionSigner, match: Match, item_id: str | None
) -> dict[str, Any]:
    prometheus.decided(point.name, match.decision)
    if match.score is not None:
        prometheus.TOP1.observe(match.score)
    if match.margin is not None:
        prometheus.MARGIN.observe(match.margin)
    token = signer.sign(
        SignedDecision(
            endpoint="match",
            at=now(),
            model_hash=served.model_hash,
            operating_point=match.operating_point,
            decision=match.decision,
            score=match.score,
            a=item_id,
            b=match.id,
        )
    )
    return {
        "decision": match.decision,
        "label": match.label,
        "id": match.id,
        "similarity": match.similarity,
        "score": match.score,
        "probability": match.probability,
        "threshold": match.threshold,
        "margin": match.margin,
        "operating_point": match.operating_point,
        "beyond_proof": match.beyond_proof,
        "decision_id": token,
    }
