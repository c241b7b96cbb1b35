"""``/dashboard``: the page people look at."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from api_schemas.http.decisions import OperatingPointSummary
from api_schemas.report import Report
from evaluation.report.charts import charts
from service.http.bodies import write_json_response
from service.routers.info import info
from service.state import ActiveModel, CurrentState
from service.web.pages import find_map_style_id, page

router = APIRouter(include_in_schema=False)
WORST = 10
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# what a point is judged by, by the kind of its target
_PROVEN = {"fpir": ("fpir", "fnir")}


@router.get("/dashboard")
async def dashboard(served: ActiveModel, state: CurrentState) -> Response:
    """The page; its figures come from ``/dashboard/figures``."""
    report = served.report
    if report is None:
        return page("no_report.html", here="dashboard", info=await info(served, state))
    return page(
        "dashboard.html",
        find_map_style_id=find_map_style_id(),
        here="dashboard",
        info=await info(served, state),
        counts=report.counts,
        score=report.score.kind,
        tiles=_tiles(report),
        charts=[
            {
                "id": one.id,
                "title": one.title,
                "caption": one.caption,
                "empty": one.empty,
                "drawn": one.figure,
            }
            for one in charts(report, list(served.points.values()))
        ],
        worst=_worst(report),
        points=[_point(one) for one in served.summarize_points()],
        reasons=[*served.reasons, *report.reasons],
    )


@router.get("/dashboard/figures")
async def figures(served: ActiveModel) -> Response:
    """The charts as plotly figures whose colours are roles."""
    drawn = [] if served.report is None else charts(served.report, list(served.points.values()))
    return write_json_response({one.id: one.figure for one in drawn if one.figure is not None})


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


def _worst(report: Report) -> list[dict[str, Any]]:
    """The classes with the least utility; bars show how far each is below the mean of all."""
    scored = [(one.utility, one) for one in report.consistency.per_class if one.utility is not None]
    if not scored:
        return []
    mean = sum(utility for utility, _ in scored) / len(scored)
    lowest = sorted(scored, key=lambda pair: (pair[0], pair[1].label))[:WORST]
    deepest = max(mean - lowest[0][0], 1e-12)
    return [
        {
            "label": one.label,
            "n_items": one.n_items,
            "far": _share(one.far),
            "frr": _share(one.frr),
            "utility": f"{utility:.3f}",
            "width": round(100 * max(mean - utility, 0.0) / deepest, 1),
        }
        for utility, one in lowest
    ]


def _point(point: OperatingPointSummary) -> dict[str, Any]:
    target, proof = point.target, point.proof
    aim = target.kind.upper() if target.value is None else f"{target.kind.upper()} {100 * target.value:g} %"
    aim += f" with {target.confidence:.0%} confidence"
    if target.gallery is not None:
        aim += f", {target.gallery.items:,} items"
    rows = []
    if proof is not None:
        # an embeddings file has no classes left to prove on: halves take turns
        halved = "halvings" in proof.method
        how = "over halvings" if halved else "proven"
        for name in _PROVEN.get(target.kind, ("far", "frr")):
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
