"""``/v1/verify``: 1:1, "are these two the same?"."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.decisions import VerifyRequest, VerifyResponse
from service.auth.api_keys import check_key
from service.http.bodies import build_body_reader
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY_STATUSES, describe_body, describe_problems
from service.http.query_answers import write_decision, write_results
from service.http.resolve_references import check_count, prepare_references
from service.state import get_deciding_model, get_state

router = APIRouter(tags=["decide"], route_class=FastRoute)
_read_body = build_body_reader(VerifyRequest, "pairs", lambda limits: limits.max_queries)
_EXAMPLES = {"two items": {"pairs": [{"a": {"id": "0"}, "b": {"id": "1"}}]}}


@router.post(
    "/v1/verify",
    summary="Decide whether two are the same",
    response_model=VerifyResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(VerifyRequest, _EXAMPLES),
)
async def verify(request: Request) -> Response:
    """One decision per pair by the active `far`, `frr`, `eer` or `cost` operating point.

    The decision is `match` if and only if score >= threshold. Where queries and items have towers of their
    own, `a` is the query and `b` the item.
    """
    started = perf_counter()
    check_key(request, "read")
    state, model = get_state(request), get_deciding_model(request)
    point = model.get_deciding_point("verify")
    body = await _read_body(request)
    check_count(len(body.pairs), "pairs", state.settings)
    # both sides of all pairs together, so that their inputs share encoder batches
    sides = [side for pair in body.pairs for side in (pair.a, pair.b)]
    resolve = await prepare_references(
        state.encoding,
        model,
        sides,
        lambda row: f"pairs.{row // 2}.{'ab'[row % 2]}",
        asks=lambda row: row % 2 == 0,
    )

    def decide() -> list[dict[str, Any]]:
        resolved = resolve()
        decisions = model.gallery.verify(resolved.vectors[0::2], resolved.vectors[1::2])
        state.monitor.recorder.observe_verify(point, decisions)
        return [
            write_decision(decision, endpoint="verify", state=state, model=model, point=point, a=a, b=b)
            for decision, a, b in zip(decisions, resolved.ids[0::2], resolved.ids[1::2], strict=True)
        ]

    results = await state.compute.run(decide)
    return write_results(results, model, round((perf_counter() - started) * 1000, 3), state.settings)
