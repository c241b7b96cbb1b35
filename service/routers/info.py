"""``/v1/info`` and ``/v1/operating-points``: what is served and by which rule it decides."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from api_schemas.http.decisions import Info, OperatingPointList
from service.http.openapi import READING, problems
from service.state import ActiveModel, CurrentState

router = APIRouter(tags=["look"])
VERSION = version("limen")


@router.get("/v1/info", summary="What is being served", responses=problems(*READING))
async def info(served: ActiveModel, state: CurrentState) -> Info:
    """Name, version, model hash, dimension, index, counts, active operating points and limits."""
    manifest = served.manifest
    return Info(
        name=manifest.name,
        version=manifest.version,
        created_at=manifest.created_at,
        model_hash=manifest.model_hash,
        dim=manifest.embedding_dim,
        encoder=served.describe_encoder(),
        index=manifest.index,
        counts=manifest.counts,
        items=served.gallery.n_items,
        read_only=state.settings.data is None,
        operating_points=served.summarize_active_points(),
        limits=state.settings.limits,
        limen=VERSION,
    )


@router.get("/v1/operating-points", summary="All operating points", responses=problems(*READING))
async def operating_points(served: ActiveModel) -> OperatingPointList:
    """Every point of the model with its proof; `active_for` says which endpoint it decides now."""
    return OperatingPointList(operating_points=served.summarize_points(), reasons=list(served.reasons))
