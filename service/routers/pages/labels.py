"""``/dashboard/labels``: items whose label may be wrong, with their pictures."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.routers.labels import find_audit
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/labels")
async def labels(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page; its module asks ``/v1/labels/audit``."""
    audit = await state.looking.run(lambda: find_audit(state, model))
    return render_page(
        request,
        "labels.html",
        here="labels",
        name=model.manifest.name,
        audited=audit is not None,
        several_workers=state.settings.workers > 1,
    )
