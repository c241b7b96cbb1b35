"""``/v1/models``, ``/v1/operating-points`` (changing them) and ``/v1/jobs``: what decides, and what runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.http.admin import (
    ActivateModelRequest,
    ActivateModelResponse,
    ActivatePointResponse,
    Job,
    LoadRequest,
    ModelList,
)
from api_schemas.http.decisions import OperatingPointSummary
from api_schemas.operating_point import OperatingPoint
from service.auth.api_keys import requires
from service.errors.problems import NOT_FOUND, READ_ONLY, ServiceProblem
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY, READING, problems, takes
from service.state import ActiveModel, CurrentState, audit

router = APIRouter(tags=["administer"])
ADMIN = [Depends(requires("admin"))]


@router.get("/v1/models", summary="Bundles side by side", responses=problems(*READING))
async def models(served: ActiveModel, state: CurrentState) -> ModelList:
    """Bundles of the configured folder (`LIMEN_BUNDLES`): available, loaded, or active."""
    return ModelList(models=await state.compute.run(state.models.list_models))


@router.post(
    "/v1/models",
    summary="Load a bundle beside the active one",
    status_code=202,
    response_model=Job,
    responses=problems(*BODY, 404, 409),
    openapi_extra=takes(LoadRequest, {"by its folder": {"version": "faces-2"}}),
    dependencies=ADMIN,
)
async def load(
    request: Request,
    body: Annotated[LoadRequest, Depends(build_body_reader(LoadRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Opened, hashed, probed and self-queried behind; a job says when it can be activated."""
    if state.settings.workers > 1:
        raise ServiceProblem(READ_ONLY, "With several workers a model is switched by a restart.")
    state.models.folder(body.version)
    job = state.jobs.submit("load model", lambda: state.models.load(body.version), "/v1/models")
    audit(request, state, "models.load", version=body.version)
    return write_json_response(job, status=202)


@router.post(
    "/v1/models/{version}/activate",
    summary="Switch to a loaded model",
    response_model=ActivateModelResponse,
    responses=problems(*BODY, 404, 409),
    openapi_extra=takes(ActivateModelRequest, {"": {"allow_missing": False}}),
    dependencies=ADMIN,
)
async def activate_model(
    request: Request,
    version: str,
    body: Annotated[ActivateModelRequest, Depends(build_body_reader(ActivateModelRequest))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """Requests that run end on the model they began with; no request fails. Roll back the same way."""
    previous, missing = await state.compute.run(
        lambda: state.models.activate(version, body.allow_missing), bounded=False
    )
    audit(request, state, "models.activate", version=version, previous=previous, missing_items=missing)
    return write_json_response({"active": version, "previous": previous, "missing_items": missing})


@router.post(
    "/v1/operating-points",
    summary="Add an operating point",
    status_code=201,
    response_model=OperatingPointSummary,
    responses=problems(*BODY, 409),
    openapi_extra=takes(OperatingPoint, {"as limen calibrate writes it": {"schema_version": 1}}),
    dependencies=ADMIN,
)
async def add_point(
    request: Request,
    body: Annotated[OperatingPoint, Depends(build_body_reader(OperatingPoint))],
    served: ActiveModel,
    state: CurrentState,
) -> Response:
    """A point of this model, as `limen calibrate` writes it; it decides nothing until it is activated."""
    await state.compute.run(lambda: state.models.add_point(body))
    audit(request, state, "operating-points.add", point=body.id)
    assert state.models.active is not None
    added = next(one for one in state.models.active.summarize_points() if one.id == body.id)
    return write_json_response(added, status=201)


@router.post(
    "/v1/operating-points/{point_id}/activate",
    summary="Let an operating point decide",
    response_model=ActivatePointResponse,
    responses=problems(*READING, 404, 409, 422),
    dependencies=ADMIN,
)
async def activate_point(
    request: Request, point_id: str, served: ActiveModel, state: CurrentState
) -> Response:
    """From the next request on; an `fpir` point decides `/v1/match`, all others `/v1/verify`."""
    endpoint, point, previous = await state.compute.run(
        lambda: state.models.activate_point(point_id), bounded=False
    )
    before = None if previous is None else previous.id
    audit(request, state, "operating-points.activate", point=point.id, previous=before)
    return write_json_response({"endpoint": endpoint, "active": point.id, "previous": before})


@router.get("/v1/jobs/{job_id}", summary="How a job is doing", responses=problems(*READING, 404, 422))
async def job(job_id: str, state: CurrentState) -> Job:
    """Jobs of this process; the last 200 are known."""
    found = state.jobs.get(job_id)
    if found is None:
        raise ServiceProblem(NOT_FOUND, f"There is no job '{job_id[:100]}'.")
    return found
