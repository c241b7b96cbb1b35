"""``/v1/verify``: are these the same?"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.decisions import VerifyRequest, VerifyResponse
from api_schemas.operating_point import OperatingPoint
from service.auth.api_keys import allow
from service.auth.decision_tokens import DecisionSigner, SignedDecision, now
from service.http.bodies import build_body_reader, write_json_response
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY, problems, takes
from service.http.resolve_queries import ResolvedQueries, check_count, encoded, pair_end_path, resolve
from service.models.loaded_model import LoadedModel
from service.state import active, state_of
from service.telemetry import prometheus

router = APIRouter(tags=["decide"], route_class=FastRoute)
_read = build_body_reader(VerifyRequest)
_EXAMPLES = {"two items": {"pairs": [{"a": {"id": "0"}, "b": {"id": "1"}}]}}


@router.post(
    "/v1/verify",
    summary="Say whether two are the same",
    response_model=VerifyResponse,
    responses=problems(*BODY, 409),
    openapi_extra=takes(VerifyRequest, _EXAMPLES),
)
async def verify(request: Request) -> Response:
    """One decision a pair by the active `far`, `frr`, `eer` or `cost` point.

    The decision is `match` iff score >= threshold.
    """
    start = perf_counter()
    allow(request, "read")
    state, served = state_of(request), active(request)
    point = served.get_deciding_point("verify")
    body = await _read(request)
    check_count(len(body.pairs), "pairs", state.settings)
    # a pair's two ends are resolved together, so that all encoder inputs share their batches
    ends = [end for pair in body.pairs for end in (pair.a, pair.b)]
    rows = await encoded(state.encoding, served, ends, pair_end_path)
    results = await state.compute.run(
        lambda: _decide(served, point, state.signer, resolve(served, ends, pair_end_path, rows))
    )
    return write_json_response(
        {
            "results": results,
            "model_hash": served.model_hash,
            "took_ms": round((perf_counter() - start) * 1000, 3),
        }
    )


def _decide(
    served: LoadedModel, point: OperatingPoint, signer: DecisionSigner, both: ResolvedQueries
) -> list[dict[str, Any]]:
    decided = served.gallery.verify(both.vectors[0::2], both.vectors[1::2])
    results = []
    for one, a, b in zip(decided, both.ids[0::2], both.ids[1::2], strict=True):
        prometheus.decided(point.name, one.decision)
        token = signer.sign(
            SignedDecision(
                endpoint="verify",
                at=now(),
                model_hash=served.model_hash,
                operating_point=one.operating_point,
                decision=one.decision,
                score=one.score,
                a=a,
                b=b,
            )
        )
        results.append(
            {
                "decision": one.decision,
                "similarity": one.similarity,
                "score": one.score,
                "probability": one.probability,
                "threshold": one.threshold,
                "operating_point": one.operating_point,
                "decision_id": token,
            }
        )
    return results
