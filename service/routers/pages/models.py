"""``/dashboard/models``: the versions side by side, what changes between two, and which one answers."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from evaluation.report.glossary import TERMS
from evaluation.report.headline import format_percent, format_small
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/models")
async def models(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page."""
    known = await state.looking.run(state.models.list_models)
    return render_page(
        request,
        "models.html",
        here="models",
        versions=sorted(known, key=lambda version: version.created_at, reverse=True),
        previous=state.models.previous,
        has_folder=state.settings.bundles is not None,
        several_workers=state.settings.workers > 1,
        percent=format_percent,
        small=format_small,
        terms=TERMS,
    )
