"""``/livez``, ``/readyz`` and ``/metrics``: what orchestrators ask."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api_schemas.http.decisions import Alive, Ready
from service.auth.api_keys import requires
from service.errors.problems import NOT_READY, ServiceProblem
from service.http.bodies import write_json_response
from service.http.openapi import problems
from service.models.gallery_gauges import look
from service.models.loaded_model import find_items_folder
from service.state import ActiveModel, CurrentState
from service.telemetry import prometheus

router = APIRouter(tags=["operate"])


@router.get("/livez", summary="The process answers", response_model=Alive)
async def livez() -> Response:
    """Static: it says that the process takes requests and nothing else."""
    return write_json_response({"status": "alive"})


@router.get("/readyz", summary="Decisions can be made", response_model=Ready, responses=problems(503))
async def readyz(served: ActiveModel, state: CurrentState) -> Response:
    """Ready once the index is loaded, 1,000 probed rows have found themselves and a query is answered."""
    if state.draining:
        raise ServiceProblem(NOT_READY, "The service is stopping.", headers={"Retry-After": "5"})
    audit = served.audit
    return write_json_response(
        {
            "status": "ready",
            "model_hash": served.model_hash,
            "self_recall": audit.self_recall,
            "probed_rows": audit.probed_rows,
        }
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses=problems(401, 403),
    dependencies=[Depends(requires("read"))],
)
async def exposition(state: CurrentState) -> Response:
    """All metrics in Prometheus' text format."""
    served = state.models.active
    if served is not None:
        data = state.settings.data
        items = None if data is None else find_items_folder(state.models.active_folder(), data)
        await state.compute.run(lambda: look(served, state.drift, items), bounded=False)
        await state.compute.run(lambda: state.recall_probe.look(served), bounded=False)
    return Response(prometheus.exposition(), media_type=CONTENT_TYPE_LATEST)
