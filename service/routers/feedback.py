"""``/v1/feedback``: the truth about decisions and pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.items import Feedback, FeedbackRequest, FeedbackResponse
from embeddings.similarity import pair_similarities
from service.auth.decision_tokens import SignedDecision
from service.errors.problems import INVALID_REQUEST, MODEL_MISMATCH, ServiceProblem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY, problems, takes
from service.http.resolve_queries import ResolvedQueries, at, encoded, resolve
from service.models.loaded_model import LoadedModel
from service.routers.items import WRITES, writable
from service.state import ActiveModel, CurrentState, audit

router = APIRouter(tags=["items"])
_EXAMPLES = {
    "about a decision": {"decision_id": "the decision_id of a match or verify answer", "same": False},
    "about a pair": {"a": {"id": "0"}, "b": {"id": "1"}, "same": True},
}


@router.post(
    "/v1/feedback",
    summary="Tell the truth about a decision or a pair",
    response_model=FeedbackResponse,
    responses=problems(*BODY, 409),
    openapi_extra=takes(FeedbackRequest, _EXAMPLES),
    dependencies=WRITES,
)
async def feedback(
    request: Request,
    body: Annotated[FeedbackRequest, Depends(build_body_reader(FeedbackRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Kept on disk for `/v1/reports/consistency?source=feedback`. A decision id carries what was decided."""
    live = writable(served)
    if body.decision_id is not None:
        told = _about_decision(served, state.signer.read(body.decision_id), body.same)
    else:
        assert body.a is not None
        assert body.b is not None
        pair = [body.a, body.b]
        rows = await encoded(state.encoding, served, pair, "ab".__getitem__)
        told = await state.compute.run(
            lambda: _about_pair(served, resolve(served, pair, "ab".__getitem__, rows), body.same)
        )
    total = await state.compute.run(lambda: live.records.add_feedback(told))
    audit(request, state, "feedback", n=1)
    return write_json_response({"total": total})


def _about_decision(served: LoadedModel, decided: SignedDecision, same: bool) -> Feedback:
    if decided.model_hash != served.model_hash:
        raise ServiceProblem(
            MODEL_MISMATCH,
            f"Model {decided.model_hash[:12]} made that decision; now {served.model_hash[:12]} decides.",
        )
    if decided.score is None:
        raise at(INVALID_REQUEST, "decision_id", "that decision compared with no item, so there is no pair")
    return Feedback(
        at=datetime.now(UTC),
        model_hash=decided.model_hash,
        operating_point=decided.operating_point,
        decision=decided.decision,
        score=decided.score,
        a=decided.a,
        b=decided.b,
        same=same,
        source="match" if decided.endpoint == "match" else "verify",
    )


def _about_pair(served: LoadedModel, both: ResolvedQueries, same: bool) -> Feedback:
    point = served.active_verify
    if point is None:
        score = float(pair_similarities(both.vectors[:1], both.vectors[1:])[0])
        decision = None
    else:
        decided = served.gallery.verify(both.vectors[:1], both.vectors[1:])[0]
        score, decision = decided.score, decided.decision
    return Feedback(
        at=datetime.now(UTC),
        model_hash=served.model_hash,
        operating_point=None if point is None else point.id,
        decision=decision,
        score=score,
        a=both.ids[0],
        b=both.ids[1],
        same=same,
        source="pair",
    )
