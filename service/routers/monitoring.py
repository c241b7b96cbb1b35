"""``/v1/monitoring`` and ``/v1/alerts``: what the service does now, and what is to be done about it."""

from __future__ import annotations

from time import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from api_schemas.http.monitoring import AcknowledgeRequest, Alert, AlertList, Monitoring, Step
from service.auth.api_keys import NEEDS_WRITE
from service.errors.problems import LIMIT_EXCEEDED, NOT_FOUND, ServiceProblem, build_field_problem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.monitoring.describe_series import SECONDS_OF_STEP, choose_step, describe_series, list_starts
from service.monitoring.series import DAY
from service.state import ActiveModel, CurrentState, log_action, order_write, write

router = APIRouter(tags=["monitor"])
LONGEST = 3_650 * DAY


@router.get(
    "/v1/monitoring",
    summary="Read the time series",
    response_model=Monitoring,
    responses=describe_problems(*READ_STATUSES, 422),
)
async def monitoring(
    model: ActiveModel,
    state: CurrentState,
    seconds: Annotated[
        int, Query(ge=60, le=LONGEST, description="Length of the range, which ends now.")
    ] = 3_600,
    step: Annotated[
        Step | Literal["auto"],
        Query(description="Length of a period; `auto` gives some hundred periods."),
    ] = "auto",
) -> Response:
    """Decisions by outcome, latency, scores beside what the calibration predicts, readings of alert rules.

    Minutes are kept for 2 days, hours for 90 days, days for ten years: with the items of the model, or
    without a data folder in memory (`kept`). Series hold counts, never a query.
    """
    chosen: Step = choose_step(seconds) if step == "auto" else step
    starts = list_starts(chosen, time(), seconds)
    if len(starts) > state.settings.max_monitoring_steps:
        raise build_field_problem(
            LIMIT_EXCEEDED,
            "seconds",
            f"{len(starts)} periods of {SECONDS_OF_STEP[chosen]} s, at most "
            f"{state.settings.max_monitoring_steps} are answered at once (LIMEN_MAX_MONITORING_STEPS)",
        )
    workers = state.settings.workers
    return await state.compute.run(
        lambda: write_json_response(describe_series(state.monitor, model, chosen, starts, workers))
    )


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
        log_action(request, state, "alerts.acknowledge", alert=alert_id[:100])
    else:
        order = order_write(request, "alerts.acknowledge", alert=alert_id[:100])
        alert = await write(
            request, state, order, lambda: state.monitor.acknowledge(alert_id, actor, body.note, order)
        )
    if alert is None:
        raise ServiceProblem(NOT_FOUND, f"There is no alert '{alert_id[:100]}'; the last 500 are kept.")
    return write_json_response(alert)
