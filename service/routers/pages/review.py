"""``/dashboard/review``: one decision after the other, judged blind."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/review")
async def review(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page; its module asks ``/v1/review`` and answers ``/v1/feedback``."""
    return render_page(
        request,
        "review.html",
        here="review",
        info=await info(model, state),
        kind="none" if model.encoder is None else model.encoder.preprocessing.kind,
    )
