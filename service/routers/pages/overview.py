"""``/dashboard``: the page that shows how evenly the threshold holds and what the operating points keep."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.decisions import OperatingPointSummary
from api_schemas.operating_point import OperatingPoint, Status
from api_schemas.report import Report
from decision.describe_point import get_shown_rates
from decision.targets import get_endpoint
from evaluation.report.audit_text import GROUP_HEAD, describe_worst_group
from evaluation.report.charts import build_charts
from evaluation.report.glossary import TERMS, describe_target
from evaluation.report.headline import (
    WORST_HEAD,
    format_number,
    format_percent,
    format_target,
    select_rates,
    select_tiles,
    select_worst_classes,
)
from service.http.bodies import write_json_response
from service.models.loaded_model import LoadedModel
from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.class_charts import build_class_url
from service.web.overview_story import describe_consistency, describe_service, list_group_rows
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
WORST = 10


@router.get("/dashboard")
async def overview(request: Request, model: ActiveModel, state: CurrentState) -> Response:
    """The page; its charts come from ``/dashboard/figures``."""
    report = model.report
    day = await state.looking.run(state.monitor.summarize_day)
    waiting = await state.looking.run(lambda: _count_waiting(model))
    story = describe_service(model, day, waiting)
    if report is None:
        return render_page(
            request, "no_report.html", here="overview", info=await info(model, state), story=story
        )
    active = [model.active_match, model.active_verify]
    others = [point for point in model.points.values() if point not in active]
    return render_page(
        request,
        "overview.html",
        here="overview",
        info=await info(model, state),
        terms=TERMS,
        class_url=build_class_url,
        story=story,
        consistency=describe_consistency(report),
        counts=report.counts,
        score=report.score.kind,
        tiles=[
            {
                "id": headline.key,
                "title": headline.heading,
                "value": headline.format(report),
                "caption": headline.describe(report),
            }
            for headline in select_tiles(report)
        ],
        charts=build_charts(report, [point for point in active if point is not None]),
        worst=_list_worst_classes(report),
        group_head=GROUP_HEAD,
        groups=_list_groups(model, report),
        worst_groups=[
            *describe_worst_group(report.groups, "match"),
            *describe_worst_group(report.groups, "verify"),
        ],
        points=[_describe_point(point) for point in model.summarize_points() if point.active_for],
        others=[_list_point(point) for point in sorted(others, key=_rank_point)],
        reasons=[*model.reasons, *report.reasons],
    )


@router.get("/dashboard/figures")
async def figures(model: ActiveModel) -> Response:
    """The charts as plotly figures whose colours are names of roles."""
    active = [point for point in (model.active_match, model.active_verify) if point is not None]
    charts = [] if model.report is None else build_charts(model.report, active)
    return write_json_response({chart.id: chart.figure for chart in charts if chart.figure is not None})


def _count_waiting(model: LoadedModel) -> int:
    """Unknown queries that are kept and have no name yet."""
    return 0 if model.live is None else model.live.unknowns.count_by_status().get("open", 0)


def _list_groups(model: LoadedModel, report: Report) -> list[tuple[str, ...]]:
    point = model.active_match
    tradeoff = next((one for one in report.tradeoffs if one.endpoint == "match"), None)
    return list_group_rows(report, tradeoff, None if point is None else point.threshold)


def _list_point(point: OperatingPoint) -> tuple[str, ...]:
    """A row of the table of the points that decide nothing now."""
    rates = get_shown_rates(point)
    endpoint = get_endpoint(point.target)
    shown = [rates.false, rates.at_most, rates.missed]
    return (point.name, endpoint, point.status, format_number(point.threshold), *map(format_percent, shown))


def _rank_point(point: OperatingPoint) -> tuple[str, float, str]:
    return get_endpoint(point.target), point.target.value or 0.0, point.name


def _list_worst_classes(report: Report) -> list[dict[str, Any]]:
    """The classes with the least utility; ``width``: distance below the mean, in % of the largest."""
    worst = select_worst_classes(report, WORST)
    farthest = max(worst[0].below_mean, 1e-12) if worst else 1.0
    return [
        dict(zip(WORST_HEAD, row.format(), strict=True))
        | {"width": round(100 * max(row.below_mean, 0.0) / farthest, 1)}
        for row in worst
    ]


def _describe_point(point: OperatingPointSummary) -> dict[str, Any]:
    target, proof = point.target, point.proof
    aim = f"{format_target(target)} with {format_percent(target.confidence)} confidence"
    if proof is not None and proof.status == "chosen":
        aim = "chosen by hand"
    if target.gallery is not None:
        aim += f", {target.gallery.items:,} items"
    rows = []
    if proof is not None:
        # without spare classes to prove on, folds of them are left out in turn
        crossed = " folds of the " in proof.method
        how = "on unseen folds" if crossed else "proven" if proof.status == "proven" else "measured"
        for name in select_rates(target):
            rate, upper = getattr(proof, name), getattr(proof, f"{name}_upper", None)
            if rate is not None:
                bound = "" if upper is None else f" (at most {format_percent(upper)})"
                rows.append((f"{name.upper()} {how}", format_percent(rate) + bound))
        rows.append(
            ("folds", f"{proof.n_classes:,} classes, each measured at a threshold chosen without its fold")
            if crossed
            else (f"{how} on", f"{proof.n_classes:,} classes")
        )
    status: Status = "estimated" if proof is None else proof.status
    return {
        "name": point.name,
        "status": status,
        "endpoint": point.active_for,
        "sentence": describe_target(target, status),
        "threshold": f"{format_number(point.threshold)} of the {point.score.kind} score",
        "target": aim,
        "proof": rows,
    }
