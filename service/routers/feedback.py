"""``/v1/feedback``: ground truth for decisions and pairs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.gallery import Feedback, FeedbackRequest, FeedbackResponse
from embeddings.similarity import compute_pair_similarities
from service.auth.api_keys import NEEDS_WRITE
from service.auth.decision_tokens import SignedDecision
from service.errors.problems import INVALID_REQUEST, MODEL_MISMATCH, ServiceProblem, build_field_problem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, describe_body, describe_problems
from service.http.resolve_references import ResolvedQueries, prepare_references
from service.models.loaded_model import LoadedModel
from service.state import ActiveModel, CurrentState, order_write, write

router = APIRouter(tags=["items"])
_EXAMPLES = {
    "about a decision": {"decision_id": "the decision_id of a match or verify answer", "same": False},
    "about a pair": {"a": {"id": "0"}, "b": {"id": "1"}, "same": True},
}


@router.post(
    "/v1/feedback",
    summary="Submit ground truth for a decision or a pair",
    response_model=FeedbackResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(FeedbackRequest, _EXAMPLES),
    dependencies=NEEDS_WRITE,
)
async def feedback(
    request: Request,
    body: Annotated[FeedbackRequest, Depends(build_body_reader(FeedbackRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Store whether two are of one class, by the `decision_id` of an answer or as a pair `a`, `b`.

    It is stored for `/v1/reports/consistency?source=feedback`. A decision id carries what was decided. A
    decision, or a pair, has one verdict: the last one counts.
    """
    live = model.get_live_gallery()
    if body.decision_id is not None:
        decision = state.signer.read(body.decision_id)
        entry, subject = _judge_decision(model, decision, body.same), decision.subject
    else:
        assert body.a is not None
        assert body.b is not None
        resolve = await prepare_references(state.encoding, model, [body.a, body.b], "ab".__getitem__)
        same = body.same
        entry, subject = await state.compute.run(lambda: _judge_pair(model, resolve(), same))
    order = order_write(request, "feedback", n=1)
    total = await write(request, state, order, lambda: live.records.add_feedback(entry, subject, order))
    return write_json_response({"total": total})


def _judge_decision(model: LoadedModel, decision: SignedDecision, same: bool) -> Feedback:
    """The feedback entry of a decision."""
    if decision.model_hash != model.model_hash:
        raise ServiceProblem(
            MODEL_MISMATCH,
            f"Model {decision.model_hash[:12]} made that decision; now {model.model_hash[:12]} decides.",
        )
    if decision.score is None:
        raise build_field_problem(
            INVALID_REQUEST, "decision_id", "that decision was compared with no item, so there is no pair"
        )
    return Feedback(
        at=datetime.now(UTC),
        model_hash=decision.model_hash,
        operating_point=decision.operating_point,
        decision=decision.decision,
        score=decision.score,
        a=decision.a,
        b=decision.b,
        same=same,
        source="match" if decision.endpoint == "match" else "verify",
    )


def _judge_pair(model: LoadedModel, pair: ResolvedQueries, same: bool) -> tuple[Feedback, str]:
    """The feedback entry of a pair, with the decision of the active operating point, and what it is about."""
    a, b = pair.vectors[:1], pair.vectors[1:]
    point = model.active_verify
    if point is None:
        score, decision = float(compute_pair_similarities(a, b)[0]), None
    else:
        verified = model.gallery.verify(a, b)[0]
        score, decision = verified.score, verified.decision
    entry = Feedback(
        at=datetime.now(UTC),
        model_hash=model.model_hash,
        operating_point=None if point is None else point.id,
        decision=decision,
        score=score,
        a=pair.ids[0],
        b=pair.ids[1],
        same=same,
        source="pair",
    )
    return entry, _identify_pair(pair)


def _identify_pair(pair: ResolvedQueries) -> str:
    """A hash of the two, in either order: of their ids, or of the vectors of those that are no items."""
    ends = [
        b"vector " + pair.vectors[row].tobytes() if item_id is None else b"item " + item_id.encode()
        for row, item_id in enumerate(pair.ids)
    ]
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(end).digest() for end in ends))).hexdigest()
