"""``/dashboard/threshold``: move the threshold, see what it does, and make it an operating point."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from decision.targets import ENDPOINTS, Endpoint
from evaluation.report.glossary import TERMS
from service.errors.problems import ServiceProblem
from service.models.loaded_model import LoadedModel
from service.models.threshold_tradeoff import find_tradeoff
from service.state import ActiveModel, CurrentState
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/dashboard/threshold")
async def threshold(
    request: Request, model: ActiveModel, state: CurrentState, endpoint: Endpoint = "match"
) -> Response:
    """The page; its figures come from ``/v1/operating-points/tradeoff``."""
    missing = await state.looking.run(lambda: {one: _explain_missing(model, one) for one in ENDPOINTS})
    return render_page(
        request,
        "threshold.html",
        here="threshold",
        name=model.manifest.name,
        endpoint=endpoint,
        missing=missing,
        terms=TERMS,
        unknown_share=state.settings.unknown_share,
    )


def _explain_missing(model: LoadedModel, endpoint: Endpoint) -> str | None:
    """Why an endpoint has no rates of other thresholds; None where it has them."""
    try:
        find_tradeoff(model, endpoint)
    except ServiceProblem as problem:
        return problem.detail
    return None
