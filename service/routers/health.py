"""``/livez``, ``/readyz`` and ``/metrics``: liveness, readiness and Prometheus metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api_schemas.http.decisions import Alive, Ready
from service.auth.api_keys import NEEDS_READ
from service.errors.problems import NOT_READY, STORE_UNAVAILABLE, ServiceProblem
from service.http.bodies import write_json_response
from service.http.openapi import describe_problems
from service.models.gallery_gauges import update_gauges
from service.models.loaded_model import LoadedModel, find_items_folder
from service.state import ActiveModel, CurrentState, ServiceState
from service.telemetry import prometheus

router = APIRouter(tags=["operate"])
STORE_SECONDS = 3.0


@router.get("/livez", summary="Liveness", response_model=Alive)
async def livez() -> Response:
    """The process accepts requests; nothing else is checked."""
    return write_json_response({"status": "alive"})


@router.get("/readyz", summary="Readiness", response_model=Ready, responses=describe_problems(503))
async def readyz(model: ActiveModel, state: CurrentState) -> Response:
    """Ready once the index is loaded and 1,000 probed rows were found, as long as the item store answers,
    and the engine where it is on a server. Of a service with several galleries: once each of them is loaded
    or has failed."""
    if state.draining:
        raise ServiceProblem(NOT_READY, "The service is stopping.", headers={"Retry-After": "5"})
    loading = [other.settings.gallery for other in state.galleries if other.is_loading]
    if loading:
        raise ServiceProblem(
            NOT_READY,
            f"Galleries are being loaded and checked: {', '.join(loading)}.",
            headers={"Retry-After": "1"},
        )
    if model.live is not None or model.gallery.is_remote:
        await _check_parts(model)
    follower = state.follower
    if follower is not None:
        follower.check_current()
        if state.models.awaited is not None:
            raise ServiceProblem(
                NOT_READY,
                f"Another process has activated '{state.models.awaited}', which is not loaded here (yet): "
                "its bundle must be in LIMEN_BUNDLES, or another version be activated.",
                headers={"Retry-After": "2"},
            )
    ready: dict[str, Any] = {
        "status": "ready",
        "model_hash": model.model_hash,
        "self_recall": model.probe.self_recall,
        "probed_rows": model.probe.probed_rows,
    }
    if model.rebuild_error is not None:
        ready["detail"] = "The last background rebuild of the index failed; /v1/info says why."
    if follower is not None:
        ready["replica"] = follower.describe().model_dump()
    return write_json_response(ready)


async def _check_parts(model: LoadedModel) -> None:
    """Raises a problem unless item store and engine answer, in a thread of its own and soon."""

    def check() -> None:
        if model.live is not None:
            model.live.check_store()
        model.gallery.check_engine()

    try:
        async with asyncio.timeout(STORE_SECONDS):
            await asyncio.to_thread(check)
    except TimeoutError:
        raise ServiceProblem(
            STORE_UNAVAILABLE,
            f"The item store or the engine did not answer within {STORE_SECONDS:g} s.",
            headers={"Retry-After": "5"},
        ) from None


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses=describe_problems(401, 403),
    dependencies=NEEDS_READ,
)
async def exposition(state: CurrentState) -> Response:
    """All metrics in Prometheus' text format; of a named gallery its own alone."""
    for of_gallery in state.galleries or [state]:
        await _update_gauges(of_gallery)
    of_one = None if state.galleries else state.settings.gallery
    return Response(prometheus.write_metrics(of_one), media_type=CONTENT_TYPE_LATEST)


async def _update_gauges(state: ServiceState) -> None:
    model, name, data = state.models.active, state.settings.gallery, state.settings.data
    if model is not None:
        items = None if data is None else find_items_folder(state.models.active_folder, data)
        await state.compute.run(lambda: update_gauges(name, model, items), bounded=False)
        if state.follower is not None:
            state.follower.update_gauges()
        await state.compute.run(lambda: state.recall_probe.update(model, name), bounded=False)
