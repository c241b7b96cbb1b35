"""``/v1/review``: the decisions that a person should look at next, without their scores."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api_schemas.http.unknowns import ReviewQueue
from index.store.kept_queries import KeptQuery
from service.http.bodies import write_json_response
from service.http.openapi import READ_STATUSES, describe_problems
from service.state import ActiveModel, CurrentState
from service.unknowns.keep_queue import describe_kept_queries
from service.unknowns.present import to_time

router = APIRouter(tags=["unknowns"])


@router.get(
    "/v1/review",
    summary="List decisions to review",
    response_model=ReviewQueue,
    responses=describe_problems(*READ_STATUSES, 409),
)
async def review(
    model: ActiveModel, state: CurrentState, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> Response:
    """Kept queries with their best candidates: first disputed decisions, which a person has called wrong
    and which want a second look, then those nearest to the threshold that have no verdict. It is blind:
    scores and decisions are shown by the answer of `POST /v1/feedback` with `unknown`, once they are
    judged.
    """
    live = model.get_live_gallery()
    await state.unknowns.flush()
    queries = await state.looking.run(lambda: live.unknowns.list_to_review(limit))
    reason = None
    if not queries:
        kept = describe_kept_queries(state.settings)
        reason = (
            f"{kept.stores} Start the service with LIMEN_KEEP_UNKNOWNS=unknown, or =all for matches as well."
            if kept.keep == "off"
            else "Every kept query has been judged."
        )
    return write_json_response({"reviews": [_write_review(query) for query in queries], "reason": reason})


def _write_review(query: KeptQuery) -> dict[str, Any]:
    return {
        "id": query.id,
        "at": to_time(query.at),
        "kind": "disputed" if query.reviews else "near",
        "candidate": query.candidate,
        "label": query.label,
        "metadata": dict(query.metadata),
        "has_thumbnail": query.has_thumbnail,
    }
