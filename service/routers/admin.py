"""Administration: ``/v1/models``, ``/v1/galleries``, changes of ``/v1/operating-points``, ``/v1/jobs``."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api_schemas.comparison import Comparison
from api_schemas.http.admin import (
    ActivateModelRequest,
    ActivateModelResponse,
    ActivatePointResponse,
    GalleryList,
    GallerySummary,
    Job,
    LoadRequest,
    Model,
    ModelList,
    OpenAiModel,
)
from api_schemas.http.decisions import OperatingPointSummary
from api_schemas.operating_point import OperatingPoint
from common.label_spelling import is_blank
from service.auth.api_keys import NEEDS_ADMIN, NEEDS_WRITE
from service.errors.problems import (
    CONFLICT,
    INVALID_REQUEST,
    NOT_FOUND,
    READ_ONLY,
    ServiceProblem,
    build_field_problem,
)
from service.http.bodies import build_body_reader, write_json_response
from service.http.openapi import BODY_STATUSES, READ_STATUSES, describe_body, describe_problems
from service.models.model_comparison import compare_loaded
from service.models.model_registry import build_unknown_model
from service.state import ActiveModel, CurrentState, ServiceState, administer, log_action, order_write

LONGEST_NAME = 512  # of an operating point
router = APIRouter(tags=["administer"])
# it holds the rates of every class that it was measured on
_read_point = build_body_reader(OperatingPoint, max_values=2_000_000)


@router.get("/v1/models", summary="List models", responses=describe_problems(*READ_STATUSES))
async def models(active: ActiveModel, state: CurrentState) -> ModelList:
    """The bundles of the folder `LIMEN_BUNDLES`: available, loaded, or active."""
    known = await state.looking.run(state.models.list_models)
    loaded = [_describe_for_openai(model) for model in known if model.items is not None]
    return ModelList(models=known, data=loaded)


@router.get(
    "/v1/models/{version}",
    summary="Read a loaded model",
    responses=describe_problems(*READ_STATUSES, 404),
)
async def model(version: str, active: ActiveModel, state: CurrentState) -> OpenAiModel:
    """A loaded model as OpenAI's API describes one, by its version."""
    known = await state.looking.run(state.models.list_models)
    loaded = {entry.version: entry for entry in known if entry.items is not None}
    if version not in loaded:
        raise build_unknown_model(version, loaded)
    return _describe_for_openai(loaded[version])


@router.post(
    "/v1/models",
    summary="Load a bundle beside the active one",
    status_code=202,
    response_model=Job,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(LoadRequest, {"by its folder": {"version": "faces-2"}}),
    dependencies=NEEDS_ADMIN,
)
async def load(
    request: Request,
    body: Annotated[LoadRequest, Depends(build_body_reader(LoadRequest))],
    active: ActiveModel,
    state: CurrentState,
) -> Response:
    """Opens, verifies and probes the bundle in the background; once the job is done it can be activated."""
    if state.settings.workers > 1:
        raise ServiceProblem(
            READ_ONLY, "With several workers models cannot be loaded: restart the service with the other one."
        )
    state.models.find_folder(body.version)
    job = state.jobs.submit("load model", lambda: state.models.load(body.version), "/v1/models")
    await log_action(request, state, "models.load", version=body.version)
    return write_json_response(job, status=202)


@router.post(
    "/v1/models/{version}/activate",
    summary="Switch to a loaded model",
    response_model=ActivateModelResponse,
    responses=describe_problems(*BODY_STATUSES, 404, 409),
    openapi_extra=describe_body(ActivateModelRequest, {"": {"allow_missing": False}}),
    dependencies=NEEDS_ADMIN,
)
async def activate_model(
    request: Request,
    version: str,
    body: Annotated[ActivateModelRequest, Depends(build_body_reader(ActivateModelRequest))],
    active: ActiveModel,
    state: CurrentState,
) -> Response:
    """No request fails: those in progress end on the model they began with. Roll back the same way."""
    order = order_write(request, "models.activate")
    previous, missing = await administer(
        request, state, order, lambda: state.models.activate(version, body.allow_missing, order)
    )
    return write_json_response({"active": version, "previous": previous, "missing_items": missing})


@router.post(
    "/v1/models/{version}/compare",
    summary="Compare a loaded model with the active one",
    status_code=202,
    response_model=Job,
    responses=describe_problems(*READ_STATUSES, 404, 409),
    dependencies=NEEDS_WRITE,
)
async def compare(request: Request, version: str, active: ActiveModel, state: CurrentState) -> Response:
    """In the background, on a sample of the items that both hold, each model at its own 1:1 point: paired
    differences, decisions that flip, and whether new queries can search the old gallery."""
    model = state.models.get_loaded(version)
    if model is active:
        raise ServiceProblem(CONFLICT, f"'{version}' is the active model: compare another one with it.")

    def work() -> None:
        state.comparisons.add(compare_loaded(active, model))

    path = f"/v1/models/{version}/comparison"
    job = state.jobs.submit("compare models", work, path)
    await log_action(request, state, "models.compare", version=version)
    return write_json_response(job, status=202)


@router.get(
    "/v1/models/{version}/comparison",
    summary="Read the comparison with the active model",
    response_model=Comparison,
    responses=describe_problems(*READ_STATUSES, 404, 409),
)
async def comparison(version: str, active: ActiveModel, state: CurrentState) -> Response:
    """The last comparison of the active model (a) with this one (b)."""
    model = state.models.get_loaded(version)
    found = state.comparisons.get(active.model_hash, model.model_hash)
    if found is None:
        raise ServiceProblem(
            NOT_FOUND,
            f"'{version}' was not compared with the active model: POST /v1/models/{version}/compare.",
        )
    return write_json_response(found)


@router.post(
    "/v1/operating-points",
    summary="Add an operating point",
    status_code=201,
    response_model=OperatingPointSummary,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(OperatingPoint, {"as limen calibrate writes it": {"schema_version": 1}}),
    dependencies=NEEDS_ADMIN,
)
async def add_point(
    request: Request,
    body: Annotated[OperatingPoint, Depends(_read_point)],
    active: ActiveModel,
    state: CurrentState,
) -> Response:
    """A point of this model, as `limen calibrate` writes it; it decides nothing until it is activated."""
    if is_blank(body.name) or len(body.name) > LONGEST_NAME:
        raise build_field_problem(INVALID_REQUEST, "name", f"send 1 to {LONGEST_NAME} characters")
    order = order_write(request, "operating-points.add", point=body.id)
    await administer(request, state, order, lambda: state.models.add_point(body, order))
    assert state.models.active is not None
    added = next(point for point in state.models.active.summarize_points() if point.id == body.id)
    return write_json_response(added, status=201)


@router.post(
    "/v1/operating-points/{point_id}/activate",
    summary="Activate an operating point",
    response_model=ActivatePointResponse,
    responses=describe_problems(*READ_STATUSES, 404, 409),
    dependencies=NEEDS_ADMIN,
)
async def activate_point(
    request: Request, point_id: str, active: ActiveModel, state: CurrentState
) -> Response:
    """It decides from the next request on: an `fpir` point `/v1/match`, all others `/v1/verify`."""
    order = order_write(request, "operating-points.activate")
    endpoint, point, previous = await administer(
        request, state, order, lambda: state.models.activate_point(point_id, order)
    )
    previous_id = None if previous is None else previous.id
    return write_json_response({"endpoint": endpoint, "active": point.id, "previous": previous_id})


def _describe_for_openai(model: Model) -> OpenAiModel:
    return OpenAiModel(id=model.version, created=int(model.created_at.timestamp()))


@router.get(
    "/v1/jobs/{job_id}",
    summary="Read the status of a job",
    responses=describe_problems(*READ_STATUSES, 404),
)
async def job(job_id: str, state: CurrentState) -> Job:
    """A background job of this process; the last 200 are remembered."""
    status = state.jobs.get(job_id)
    if status is None and state.runner is not None:
        status = await asyncio.to_thread(state.runner.get, job_id)
    if status is None:
        raise ServiceProblem(
            NOT_FOUND, f"There is no job '{job_id[:100]}'; the last 200 of this process are remembered."
        )
    return status


@router.get(
    "/v1/galleries",
    summary="List galleries",
    responses=describe_problems(*READ_STATUSES, 404),
    dependencies=NEEDS_ADMIN,
)
async def galleries(state: CurrentState) -> GalleryList:
    """The galleries of `LIMEN_GALLERIES` and that of `LIMEN_BUNDLE`. All that a service answers, a gallery
    answers under `/v1/galleries/{name}`: `/v1/galleries/faces/match`, `/v1/galleries/faces/readyz`.
    """
    if not state.galleries:
        raise ServiceProblem(NOT_FOUND, "A gallery does not list others: ask the service itself.")
    return GalleryList(galleries=[_summarize(gallery) for gallery in state.galleries])


def _summarize(state: ServiceState) -> GallerySummary:
    model = state.models.active
    return GallerySummary(
        name=state.settings.gallery,
        status="loading" if state.is_loading else "ready" if model is not None else "failed",
        detail=None if state.failure is None else str(state.failure),
        model_hash=None if model is None else model.model_hash,
        version=None if model is None else state.models.version,
        items=None if model is None else model.gallery.n_items,
        read_only=state.settings.data is None,
    )
