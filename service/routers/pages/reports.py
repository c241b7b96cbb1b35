"""``/dashboard/reports``: the reports of hold-out, gallery and feedback, made anew, over time, as files."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.report import Report
from evaluation.report.charts import build_charts
from evaluation.report.glossary import TERMS
from evaluation.report.headline import WORST_HEAD, select_tiles, select_worst_classes
from service.errors.problems import ServiceProblem
from service.http.bodies import write_json_response
from service.models.loaded_model import LoadedModel
from service.models.recomputed_reports import Source
from service.routers.reports import read_report, require_report
from service.state import ActiveModel, CurrentState, ServiceState
from service.web.class_charts import build_class_url
from service.web.page_routes import PageRoute
from service.web.pages import render_page
from service.web.report_story import compare_with_holdout

router = APIRouter(include_in_schema=False, route_class=PageRoute)
SOURCES: dict[Source, str] = {
    "holdout": "Classes that neither model nor threshold has seen, measured when the bundle was made.",
    "gallery": "All items that are in the gallery now, each class against all others.",
    "feedback": "The pairs that people have judged.",
}
NOT_MEASURED: dict[str, str] = {
    "gallery": "Not measured yet. Every item is compared with every other: is the gallery served "
    "as evenly now as the classes that the threshold was measured on?",
    "feedback": "Not measured yet. Judge decisions on Review, or by POST /v1/feedback, then measure.",
}
WORST = 20


@router.get("/dashboard/reports")
async def reports(
    request: Request, model: ActiveModel, state: CurrentState, source: Source = "holdout"
) -> Response:
    """The page; its charts come from ``/dashboard/reports/figures``."""
    content = await state.looking.run(lambda: _describe(state, model, source))
    return render_page(
        request,
        "reports.html",
        here="reports",
        source=source,
        sources=SOURCES,
        terms=TERMS,
        class_url=build_class_url,
        **content,
    )


@router.get("/dashboard/reports/figures")
async def figures(model: ActiveModel, state: CurrentState, source: Source = "holdout") -> Response:
    """The charts as plotly figures whose colours are names of roles."""
    report, _ = await state.looking.run(lambda: _read(state, model, source))
    charts = [] if report is None else build_charts(report, _list_active(model))
    return write_json_response({chart.id: chart.figure for chart in charts if chart.figure is not None})


def _describe(state: ServiceState, model: LoadedModel, source: Source) -> dict[str, Any]:
    report, missing = _read(state, model, source)
    if report is None:
        if source in NOT_MEASURED and read_report(state, model, source) is None:
            missing = NOT_MEASURED[source]
        return {"report": None, "missing": missing, "beside": None}
    return {
        "report": report,
        "missing": missing,
        "tiles": [
            (headline.heading, headline.format(report), headline.describe(report))
            for headline in select_tiles(report)
        ],
        "charts": [chart for chart in build_charts(report, _list_active(model)) if chart.figure is not None],
        "worst_head": WORST_HEAD,
        "worst": [row.format() for row in select_worst_classes(report, WORST)],
        "beside": compare_with_holdout(report, model.report) if source != "holdout" else None,
    }


def _read(state: ServiceState, model: LoadedModel, source: Source) -> tuple[Report | None, str]:
    try:
        return require_report(state, model, source), ""
    except ServiceProblem as problem:
        return None, problem.detail


def _list_active(model: LoadedModel) -> list[Any]:
    return [point for point in (model.active_match, model.active_verify) if point is not None]
