"""``/dashboard/unknowns``: unknown queries in groups, to be named, corrected and enrolled."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/unknowns")
async def unknowns(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page; its module asks ``/v1/unknowns/groups``."""
    return render_page(
        request,
        "unknowns.html",
        here="unknowns",
        info=await info(model, state),
        kind="none" if model.encoder is None else model.encoder.preprocessing.kind,
        linking=model.active_verify,
    )
