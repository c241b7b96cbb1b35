"""``/v1/monitoring``: what the service decides, period by period."""

from __future__ import annotations

from time import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from api_schemas.http.monitoring import Monitoring, Step
from service.errors.problems import LIMIT_EXCEEDED, build_field_problem
from service.http.bodies import write_json_response
from service.http.openapi import READ_STATUSES, describe_problems
from service.monitoring.describe_series import SECONDS_OF_STEP, choose_step, describe_series, list_starts
from service.monitoring.series import DAY
from service.state import ActiveModel, CurrentState

router = APIRouter(tags=["monitor"])
LONGEST = 3_650 * DAY


@router.get(
    "/v1/monitoring",
    summary="Read the time series",
    response_model=Monitoring,
    responses=describe_problems(*READ_STATUSES),
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
    return await state.looking.run(
        lambda: write_json_response(describe_series(state.monitor, model, chosen, starts, workers))
    )
