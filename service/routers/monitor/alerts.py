"""``/v1/alerts``: what has changed, and who knows of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.monitoring import AcknowledgeRequest, Alert, AlertList
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import NOT_FOUND, ServiceProblem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.state import ActiveModel, CurrentState, log_action, order_write, write

router = APIRouter(tags=["monitor"])


@router.get(
    "/v1/alerts",
    summary="List alerts and their rules",
    response_model=AlertList,
    responses=describe_problems(*READ_STATUSES),
)
async def alerts(model: ActiveModel, state: CurrentState) -> Response:
    """Alerts that fire, then those that are over; the last 500 are kept. And every rule with its state."""
    monitor = state.monitor
    return write_json_response(
        AlertList(
            alerts=monitor.list_alerts(), rules=monitor.list_rules(), webhook=monitor.describe_webhook()
        )
    )


@router.post(
    "/v1/alerts/{alert_id}/acknowledge",
    summary="Acknowledge an alert",
    response_model=Alert,
    responses=describe_problems(*BODY_STATUSES, 404),
    openapi_extra=describe_body(
        AcknowledgeRequest, {"with a note": {"note": "The new camera; recalibrating."}}
    ),
    dependencies=NEEDS_WRITE,
)
async def acknowledge(
    request: Request,
    alert_id: str,
    body: Annotated[AcknowledgeRequest, Depends(build_body_reader(AcknowledgeRequest))],
    model: ActiveModel,
    state: CurrentState,
) -> Response:
    """Somebody has seen it: it goes on until its condition is gone, and the page shows who knows of it."""
    actor = request.state.actor
    if model.live is None:
        alert = state.monitor.acknowledge(alert_id, actor, body.note, None)
        await log_action(request, state, "alerts.acknowledge", alert=alert_id[:100])
    else:
        order = order_write(request, "alerts.acknowledge", alert=alert_id[:100])
        alert = await write(
            request, state, order, lambda: state.monitor.acknowledge(alert_id, actor, body.note, order)
        )
    if alert is None:
        raise ServiceProblem(NOT_FOUND, f"There is no alert '{alert_id[:100]}'; the last 500 are kept.")
    return write_json_response(alert)
