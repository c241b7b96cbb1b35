"""``/v1/feedback``: ground truth for decisions and pairs, and corrections that matches obey."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api_schemas.http.gallery import FeedbackPage, FeedbackRequest, FeedbackResponse
from index.gallery.live_gallery import LiveGallery
from index.store.feedback_entries import list_feedback
from index.store.write_order import WriteOrder
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import LIMIT_EXCEEDED, NOT_FOUND, ServiceProblem, build_field_problem
from service.feedback.judge_feedback import Verdict, prepare_judgement
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.state import ActiveModel, CurrentState, order_write, write

router = APIRouter(tags=["items"])
_EXAMPLES = {
    "about a decision": {"decision_id": "the decision_id of a match or verify answer", "same": False},
    "about a pair": {"a": {"id": "0"}, "b": {"id": "1"}, "same": True},
    "this decision named the wrong one": {"decision_id": "the decision_id of a match", "not_label": "7"},
    "this vector is not of that class": {"vector": [0.6, 0.8], "not_label": "7"},
}
FeedbackId = Annotated[str, Path(min_length=1, max_length=64, pattern="^[a-z0-9]+$")]


@router.post(
    "/v1/feedback",
    summary="Submit ground truth for a decision or a pair, or a correction",
    response_model=FeedbackResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(FeedbackRequest, _EXAMPLES),
    dependencies=NEEDS_WRITE,
)
async def feedback(
    request: Request,
    body: Annotated[FeedbackRequest, Depends(build_body_reader(FeedbackRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Store whether two are of one class: by the `decision_id` of an answer, as a pair `a`, `b`, or for a
    kept query (`unknown`) and its best candidate.

    It is stored for `/v1/reports/consistency?source=feedback`. A decision id carries what was decided. A
    decision, or a pair, has one verdict: the last one counts.

    `not_label` is a correction: the query of a decision, a kept query, a stored item, a vector or an input is
    not of that class. Later matches obey: the same query, found by item id or by its vector up to rounding,
    is answered with the next class above the threshold, or unknown. It counts as a false match, is listed by
    `GET /v1/feedback` and taken back by `DELETE /v1/feedback/{id}`.
    """
    live = model.get_live_gallery()
    judge = await prepare_judgement(state, model, body)
    verdict = await state.compute.run(judge)
    if verdict.entry.not_label is not None:
        _check_room(live, verdict.subject, state.settings.max_corrections)
    order = order_write(request, "feedback", n=1)
    total = await write(request, state, order, lambda: _store(live, verdict, order))
    point = model.points.get(verdict.entry.operating_point or "")
    return write_json_response(
        {
            "total": total,
            "id": verdict.subject,
            "decision": verdict.entry.decision,
            "score": verdict.entry.score,
            "threshold": None if point is None else point.threshold,
        }
    )


@router.get(
    "/v1/feedback",
    summary="List feedback",
    response_model=FeedbackPage,
    responses=describe_problems(*READ_STATUSES, 409),
)
async def page_feedback(
    model: ActiveModel,
    state: CurrentState,
    cursor: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    corrections: bool = False,
) -> Response:
    """Feedback of the active model, newest first; `corrections` alone if set."""
    live = model.get_live_gallery()
    rows, (total, n_corrections) = await state.looking.run(
        lambda: (
            list_feedback(live.records, live.unknowns, cursor, limit + 1, corrections=corrections),
            live.records.count_feedback(),
        )
    )
    return write_json_response(
        {
            "feedback": [entry for _, entry in rows[:limit]],
            "next_cursor": rows[limit - 1][0] if len(rows) > limit else None,
            "total": total,
            "corrections": n_corrections,
        }
    )


@router.delete(
    "/v1/feedback/{feedback_id}",
    summary="Take feedback back",
    status_code=204,
    responses=describe_problems(*READ_STATUSES, 404, 409),
    dependencies=NEEDS_WRITE,
)
async def delete_feedback(
    request: Request, feedback_id: FeedbackId, model: ActiveModel, state: CurrentState
) -> Response:
    """Take one piece of feedback back; a correction is not obeyed from the next match on."""
    live = model.get_live_gallery()
    order = order_write(request, "feedback.delete", feedback=feedback_id)

    def delete() -> bool:
        is_gone = live.records.delete_feedback(feedback_id, order)
        if feedback_id in live.corrections:
            live.reload_corrections()
        return is_gone

    if not await write(request, state, order, delete):
        raise ServiceProblem(NOT_FOUND, f"No feedback has the id '{feedback_id}'.")
    return Response(status_code=204)


def _store(live: LiveGallery, verdict: Verdict, order: WriteOrder) -> int:
    total = live.records.add_feedback(verdict.entry, verdict.subject, order)
    if verdict.entry.not_label is not None or verdict.subject in live.corrections:
        live.add_correction(verdict.subject, verdict.entry)
    return total


def _check_room(live: LiveGallery, subject: str, most: int) -> None:
    """Raises the problem ``limit-exceeded`` for more corrections than matches may have to obey."""
    if len(live.corrections) >= most and subject not in live.corrections:
        raise build_field_problem(
            LIMIT_EXCEEDED,
            "not_label",
            f"there are {most} corrections (LIMEN_MAX_CORRECTIONS): take back some (DELETE /v1/feedback/ID), "
            "or write the items that make them needless",
        )
