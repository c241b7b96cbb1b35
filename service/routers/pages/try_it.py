"""``/dashboard/try``: a picture, a text, a vector or an item is asked about, and the answer explained."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from evaluation.report.glossary import TERMS, describe_target
from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/try")
async def try_it(
    request: Request,
    model: ActiveModel,
    state: CurrentState,
    item_id: Annotated[str, Query(alias="id", max_length=512)] = "",
) -> Response:
    """The page; its module asks ``/v1/match`` and ``/v1/search`` as any client does."""
    point = model.active_match
    example = model.gallery.page(None, 1)
    return render_page(
        request,
        "try_it.html",
        here="try_it",
        info=await info(model, state),
        terms=TERMS,
        kind=None if model.encoder is None else model.encoder.preprocessing.kind,
        point=point,
        sentence="" if point is None else describe_target(point.target, point.status),
        reasons=[] if point is not None else list(model.reasons),
        given=item_id,
        example=example[0].id if example else "",
    )
