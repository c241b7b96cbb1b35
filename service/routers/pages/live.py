"""``/dashboard/live``: decisions as they are made, drift, latency and alerts."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
RANGES = (
    (3_600, "hour", "the last hour"),
    (21_600, "6 hours", "the last 6 hours"),
    (86_400, "24 hours", "the last 24 hours"),
    (604_800, "7 days", "the last 7 days"),
    (7_776_000, "90 days", "the last 90 days"),
)


@router.get("/dashboard/live")
async def live(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page; its module asks ``/v1/monitoring`` and ``/v1/alerts`` again and again."""
    return render_page(
        request,
        "live.html",
        here="live",
        info=await info(model, state),
        ranges=RANGES,
        workers=state.settings.workers,
        can_match=model.active_match is not None,
        reasons=model.reasons,
    )
