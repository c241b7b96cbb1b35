"""``/v1/info`` and ``/v1/operating-points``: the served model, its operating points and the limits."""

from __future__ import annotations

from fastapi import APIRouter

from api_schemas.http.decisions import Info, OperatingPointList
from service import VERSION
from service.http.openapi import READ_STATUSES, describe_problems
from service.state import ActiveModel, CurrentState
from service.unknowns.keep_queue import describe_kept_queries

router = APIRouter(tags=["inspect"])


@router.get("/v1/info", summary="Describe the service", responses=describe_problems(*READ_STATUSES))
async def info(model: ActiveModel, state: CurrentState) -> Info:
    """Name, version, model hash, dimension, index, counts, active operating points and limits."""
    manifest = model.manifest
    return Info(
        name=manifest.name,
        version=manifest.version,
        created_at=manifest.created_at,
        model_hash=manifest.model_hash,
        dim=manifest.embedding_dim,
        encoder=model.describe_encoder(),
        index=model.gallery.describe_index(),
        counts=manifest.counts,
        items=model.gallery.n_items,
        thumbnails=state.settings.thumbnails,
        read_only=state.settings.data is None,
        operating_points=model.summarize_active_points(),
        limits=state.settings.limits,
        limen=VERSION,
        kept_queries=describe_kept_queries(state.settings),
        rebuild_error=model.rebuild_error,
        replica=None if state.follower is None else state.follower.describe(),
    )


@router.get(
    "/v1/operating-points", summary="List operating points", responses=describe_problems(*READ_STATUSES)
)
async def operating_points(model: ActiveModel) -> OperatingPointList:
    """Every operating point of the model with its proof; `active_for` is the endpoint that it decides now."""
    return OperatingPointList(operating_points=model.summarize_points(), reasons=list(model.reasons))
