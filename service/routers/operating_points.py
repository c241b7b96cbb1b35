"""``/v1/operating-points/tradeoff`` and ``/choose``: what other thresholds would do, and to take one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from api_schemas.http.tradeoff import ChoosePointRequest, ChoosePointResponse, TradeoffResponse
from decision.targets import Endpoint
from service.auth.api_keys import NEEDS_ADMIN
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.models.threshold_tradeoff import build_tradeoff_response, choose_threshold
from service.state import ActiveModel, CurrentState, administer, order_write

router = APIRouter()
FALSE_MATCH_COST = 5.0
_CHOICES = {
    "to look at": {"endpoint": "match", "threshold": 0.62},
    "to decide at once": {"endpoint": "match", "threshold": 0.62, "name": "stricter", "activate": True},
}


@router.get(
    "/v1/operating-points/tradeoff",
    summary="Read the rates of every threshold",
    tags=["inspect"],
    response_model=TradeoffResponse,
    responses=describe_problems(*READ_STATUSES, 404),
)
async def tradeoff(
    model: ActiveModel,
    state: CurrentState,
    endpoint: Endpoint = "match",
    unknown_share: Annotated[float | None, Query(gt=0, lt=1)] = None,
    false_match_cost: Annotated[float, Query(gt=0, le=1e6)] = FALSE_MATCH_COST,
) -> Response:
    """FAR, FRR, FPIR, FNIR, expected cost and classes over a rate, at each of a grid of thresholds; the same
    rates of groups. They were counted when the bundle was made, on its hold-out classes.

    `points` are the operating points on the grid. `unknown_share` is the service's setting unless given.
    """
    share = state.settings.unknown_share if unknown_share is None else unknown_share
    answer = await state.looking.run(
        lambda: build_tradeoff_response(model, endpoint, share, false_match_cost)
    )
    return write_json_response(answer)


@router.post(
    "/v1/operating-points/choose",
    summary="Make a threshold an operating point",
    tags=["administer"],
    status_code=201,
    response_model=ChoosePointResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(ChoosePointRequest, _CHOICES),
    dependencies=NEEDS_ADMIN,
)
async def choose(
    request: Request,
    body: Annotated[ChoosePointRequest, Depends(build_body_reader(ChoosePointRequest))],
    active: ActiveModel,
    state: CurrentState,
) -> Response:
    """A point with `proof.status` `chosen`: its proof is what the curve says of the threshold.

    With `activate` it decides from the next request on."""
    point = choose_threshold(active, body.endpoint, body.threshold, body.name)
    if point.id not in active.points:
        adding = order_write(
            request, "operating-points.choose", point=point.id, threshold=point.threshold, name=point.name
        )
        await administer(request, state, adding, lambda: state.models.add_point(point, adding))
    previous = None
    if body.activate:
        activating = order_write(request, "operating-points.activate")
        _, _, replaced = await administer(
            request, state, activating, lambda: state.models.activate_point(point.id, activating)
        )
        previous = None if replaced is None else replaced.id
    assert state.models.active is not None
    made = next(one for one in state.models.active.summarize_points() if one.id == point.id)
    return write_json_response(
        ChoosePointResponse(point=made, activated=body.activate, previous=previous), status=201
    )
