"""``/v1/galleries``: the galleries of a service, each with a model, items, points and keys of its own."""

from __future__ import annotations

from fastapi import APIRouter

from api_schemas.http.admin import GalleryList, GallerySummary
from service.auth.api_keys import NEEDS_ADMIN
from service.errors.problems import NOT_FOUND, ServiceProblem
from service.http.openapi import READ_STATUSES, describe_problems
from service.state import CurrentState, ServiceState

router = APIRouter(tags=["administer"])


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
