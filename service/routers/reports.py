"""``/v1/reports/consistency``: how evenly the threshold holds over classes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from api_schemas.report import Report
from service.bodies import json_response
from service.openapi import READING, problems
from service.problems import NOT_FOUND, ServiceProblem
from service.state import Active

router = APIRouter(tags=["look"])


@router.get(
    "/v1/reports/consistency",
    summary="The consistency report",
    response_model=Report,
    responses=problems(*READING, 404, 422),
)
async def consistency(
    served: Active, source: Literal["holdout", "gallery", "feedback"] = "holdout"
) -> Response:
    """The report of the bundle's hold-out data: OPIS with its interval, curves, and every class."""
    if source != "holdout":
        raise ServiceProblem(NOT_FOUND, f"There is no report of the {source} yet; source=holdout has one.")
    if served.report is None:
        raise ServiceProblem(NOT_FOUND, "The bundle was made without a report: export or build it again.")
    return json_response(served.report)
