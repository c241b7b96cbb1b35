"""``/dashboard``: the page that shows how evenly the threshold holds and what the operating points keep."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from api_schemas.http.decisions import OperatingPointSummary
from api_schemas.report import Report
from evaluation.report.charts import build_charts
from evaluation.report.glossary import TERMS, describe_target
from service.http.bodies import write_json_response
from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.pages import find_map_style_id, render_page

router = APIRouter(include_in_schema=False)
WORST = 10
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# the rates that a point is judged by, by the kind of its target; far and frr otherwise
_PROVEN_RATES = {"fpir": ("fpir", "fnir")}


@router.get("/dashboard")
async def dashboard(model: ActiveModel, state: CurrentState) -> Response:
    """The page; its charts come from ``/dashboard/figures``."""
    report = model.report
    if report is None:
        return render_page("no_report.html", here="dashboard", info=await info(model, state))
    return render_page(
        "dashboard.html",
        map_style_id=find_map_style_id(),
        here="dashboard",
        info=await info(model, state),
        terms=TERMS,
        counts=report.counts,
        score=report.score.kind,
        tiles=_tiles(report),
        charts=build_charts(report, list(model.points.values())),
        worst=_list_worst_classes(report),
        points=[_describe_point(point) for point in model.summarize_points()],
        reasons=[*model.reasons, *report.reasons],
    )


@router.get("/dashboard/figures")
async def figures(model: ActiveModel) -> Response:
    """The charts as plotly figures whose colours are names of roles."""
    charts = [] if model.report is None else build_charts(model.report, list(model.points.values()))
    return write_json_response({chart.id: chart.figure for chart in charts if chart.figure is not None})


def _tiles(report: Report) -> list[dict[str, Any]]:
    found, checked = report.consistency, report.verification
    value, kind = (
        (found.opis, "not debiased: too few items")
        if found.opis_debiased is None
        else (found.opis_debiased, "debiased")
    )
    interval = found.opis_ci
    spread = (
        "0 is perfectly even; no interval: too few items"
        if interval is None
        else f"0 is perfectly even; 95 % interval {_small(interval[0])} to {_small(interval[1])}"
    )
    return [
        {
            "id": "opis",
            "name": f"OPIS, inconsistency over classes ({kind})",
            "value": _small(value),
            "unit": "",
            "aside": spread,
        },
        _rate("eer", "Equal error rate", checked.eer, "false acceptance = false rejection"),
        _rate("tar", "Accepted at FAR 1 %", checked.tar_at_far.get("0.01"), "of the pairs of one class"),
        _rate("recall", "Recall@1", report.retrieval.recall_at_1, "the nearest is of the same class"),
        _rate("map", "MAP@R", report.retrieval.map_at_r, "how well classes rank together"),
    ]


def _rate(name: str, title: str, value: float | None, aside: str) -> dict[str, Any]:
    shown = {"value": "–", "unit": ""} if value is None else {"value": f"{100 * value:.1f}", "unit": "%"}
    return {"id": name, "name": title, "aside": aside, **shown}


def _list_worst_classes(report: Report) -> list[dict[str, Any]]:
    """The classes with the least utility; ``width``: distance below the mean, in % of the largest."""
    scored = [(row.utility, row) for row in report.consistency.per_class if row.utility is not None]
    if not scored:
        return []
    mean = sum(utility for utility, _ in scored) / len(scored)
    lowest = sorted(scored, key=lambda pair: (pair[0], pair[1].label))[:WORST]
    farthest = max(mean - lowest[0][0], 1e-12)
    return [
        {
            "label": row.label,
            "n_items": row.n_items,
            "far": _share(row.far),
            "frr": _share(row.frr),
            "utility": f"{utility:.3f}",
            "width": round(100 * max(mean - utility, 0.0) / farthest, 1),
        }
        for utility, row in lowest
    ]


def _describe_point(point: OperatingPointSummary) -> dict[str, Any]:
    target, proof = point.target, point.proof
    aim = target.kind.upper() if target.value is None else f"{target.kind.upper()} {100 * target.value:g} %"
    aim += f" with {target.confidence:.0%} confidence"
    if target.gallery is not None:
        aim += f", {target.gallery.items:,} items"
    rows = []
    if proof is not None:
        # an embeddings file has no spare classes to prove on: it is halved at random
        halved = "halvings" in proof.method
        how = "over halvings" if halved else "proven"
        for name in _PROVEN_RATES.get(target.kind, ("far", "frr")):
            rate, upper = getattr(proof, name), getattr(proof, f"{name}_upper", None)
            if rate is not None:
                bound = "" if upper is None else f" (at most {_share(upper)})"
                rows.append((f"{name.upper()} {how}", _share(rate) + bound))
        rows.append(
            ("halvings", f"means of 20: {proof.n_classes:,} classes each, own threshold and gallery")
            if halved
            else ("proven on", f"{proof.n_classes:,} classes")
        )
    return {
        "name": point.name,
        "endpoint": point.active_for,
        "sentence": describe_target(target),
        "threshold": f"{point.threshold:.4f} of the {point.score.kind} score",
        "target": aim,
        "proof": rows,
    }


def _small(value: float | None) -> str:
    """A small number as people write it: 0.0125, or 2.1 × 10⁻⁴."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.4f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    percent = 100 * value
    return f"{percent:.1f} %" if percent >= 1 or percent == 0 else f"{percent:.2g} %"
