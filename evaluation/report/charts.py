"""The charts of a report: plotly figures whose colours are roles, painted in light or dark.

One description, three painters: the dashboard (plotly), ``report.html`` (``svg.py``, vector graphics
without a script) and PNG files (``png.py``). A trace or shape names its colour: ``meta.role`` or ``name`` is
accent, warm, cool, ink or accent-wash. A new chart is a function and a line in ``CHARTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from evaluation.report.headline import format_number, format_percent

Figure = dict[str, Any]
AXIS = {"rangemode": "normal", "tickformat": ".2f"}
LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}


@dataclass(frozen=True)
class Chart:
    """One chart; ``figure`` is None where the report has no such curve, and ``empty`` says why."""

    id: str
    title: str
    caption: str
    empty: str
    figure: Figure | None


@dataclass(frozen=True)
class Curve:
    """A trace with a colour; the area between it and ``base`` is filled where there is one."""

    role: str
    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    base: Sequence[float | None] | None


def build_charts(
    report: Report, points: Sequence[OperatingPoint], diagnosis: Diagnosis | None = None
) -> list[Chart]:
    """Every chart that the documents can give.

    Points that threshold another score than the report's have no position on its axis and are left out.
    """
    points = [point for point in points if point.score == report.score]
    charts = (build(report, points, diagnosis) for build in CHARTS)
    return [chart for chart in charts if chart is not None]


def read_curves(figure: Figure) -> list[Curve]:
    """The traces of a figure that have a colour, as a painter needs them."""
    curves: list[Curve] = []
    previous: Figure | None = None
    for trace in figure["data"]:
        meta = trace.get("meta")
        if meta:
            base = previous["y"] if meta.get("fill") and previous is not None else None
            curves.append(Curve(meta["role"], trace["name"], trace["x"], trace["y"], base))
        previous = trace
    return curves


def build_utility_chart(report: Report, points: Sequence[OperatingPoint], _: Diagnosis | None) -> Chart:
    """Chart of each class's utility over the calibration range."""
    return Chart(
        "utility",
        "One threshold, every class",
        "Mean utility of the classes against the threshold; nine in ten classes lie in the band. "
        "The thinner the band, the more evenly a threshold holds.",
        "Utility needs classes with at least two items.",
        _build_utility(report, points),
    )


def build_rates_chart(report: Report, points: Sequence[OperatingPoint], _: Diagnosis | None) -> Chart:
    """Chart of FAR and FRR over thresholds."""
    return Chart(
        "rates",
        "Where to cut",
        "False acceptance and false rejection of pairs against the threshold, with the operating points. "
        "The shaded range is the one that OPIS looks at.",
        "Rates need pairs of one class and pairs of two.",
        _build_rates(report, points),
    )


def build_reliability_chart(
    _: Report, __: Sequence[OperatingPoint], diagnosis: Diagnosis | None
) -> Chart | None:
    """Probabilities of a match beside the fraction of matches."""
    diagram = None if diagnosis is None else diagnosis.reliability
    if diagram is None:
        return None
    data = [
        _build_line([0.0, 1.0], [0.0, 1.0], "as promised", "cool"),
        _build_line(diagram.predicted, diagram.observed, "as observed", "accent"),
    ]
    layout = _build_layout([], (0.0, 1.0)) | {
        "yaxis": AXIS | {"title": {"text": "fraction of matches"}},
        "legend": LEGEND,
    }
    layout["xaxis"]["title"] = {"text": "probability of a match"}
    return Chart(
        "reliability",
        "Is the probability true?",
        f"Pairs in bins of equal weight by the probability of a match ({diagram.kind}, "
        f"prior {diagram.prior:g}), and how many of them match. Mean gap (ECE) {format_number(diagram.ece)}, "
        f"Brier score {format_number(diagram.brier)}, log loss {format_number(diagram.log_loss)}.",
        "",
        {"data": data, "layout": layout},
    )


def build_answers_chart(report: Report, _: Sequence[OperatingPoint], __: Diagnosis | None) -> Chart | None:
    """Probabilities that an answer is right beside the fraction of right answers."""
    answer = report.answer
    if answer is None:
        return None
    diagram = answer.reliability
    data = [
        _build_line([0.0, 1.0], [0.0, 1.0], "as promised", "cool"),
        _build_line(diagram.predicted, diagram.observed, "as observed", "accent"),
    ]
    layout = _build_layout([], (0.0, 1.0)) | {
        "yaxis": AXIS | {"title": {"text": "fraction of right answers"}},
        "legend": LEGEND,
    }
    layout["xaxis"]["title"] = {"text": "probability that the answer is right"}
    return Chart(
        "answers",
        "How sure is an answer?",
        "Answers of a 1:N search in bins of equal weight by the probability that they are right (the label "
        f"is, or the query is rightly unknown), with {format_percent(answer.unknown_share)} of the queries "
        f"unknown in a gallery of {answer.classes:,} classes. Mean gap (ECE) {format_number(answer.ece)}, "
        f"log loss {format_number(answer.log_loss)}.",
        "",
        {"data": data, "layout": layout},
    )


CHARTS: tuple[Callable[[Report, Sequence[OperatingPoint], Diagnosis | None], Chart | None], ...] = (
    build_utility_chart,
    build_rates_chart,
    build_reliability_chart,
    build_answers_chart,
)


def _build_utility(report: Report, points: Sequence[OperatingPoint]) -> Figure | None:
    consistency = report.consistency
    if len(consistency.thresholds) < 2 or not consistency.mean_utility:
        return None
    x = consistency.thresholds
    band = consistency.band
    hidden = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hovertemplate": "%{y:.3f}"}
    mean = _build_line(x, consistency.mean_utility, "mean utility", "accent")
    data = [
        hidden | {"type": "scatter", "x": x, "y": band.p95, "name": "95th percentile"},
        _build_line(x, band.p05, "5th percentile", "accent")
        | hidden
        | {"fill": "tonexty", "meta": {"role": "accent", "fill": True}},
        mean | {"line": {"width": 2.6}, "hovertemplate": "%{y:.3f}"},
    ]
    layout = _build_layout(points, (min(x), max(x))) | {
        "yaxis": AXIS | {"title": {"text": "utility"}},
        "showlegend": False,
    }
    return {"data": data, "layout": layout}


def _build_rates(report: Report, points: Sequence[OperatingPoint]) -> Figure | None:
    curve = report.verification.curve
    if curve is None or len(curve.threshold) < 2:
        return None
    shown = [
        (threshold, far, frr)
        for threshold, far, frr in zip(curve.threshold, curve.far, curve.frr, strict=True)
        if far < 0.6 or frr > 0
    ]
    x = [threshold for threshold, _, _ in shown]
    data = [
        _build_line(x, [far if far > 0 else None for _, far, _ in shown], "false acceptance (FAR)", "warm"),
        _build_line(x, [frr if frr > 0 else None for _, _, frr in shown], "false rejection (FRR)", "cool"),
    ]
    layout = _build_layout(points, _find_span(shown, points))
    reach = report.consistency.calibration_range
    if reach is not None:
        style = {"layer": "below", "line": {"width": 0}}
        layout["shapes"].append(_build_shape("rect", sorted(reach.score), "accent-wash", style))
    layout["yaxis"] = {
        "type": "log",
        "title": {"text": "fraction of pairs"},
        "range": [-4, 0],
        "tickvals": [0.0001, 0.001, 0.01, 0.1, 1],
        "ticktext": ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"],
    }
    layout["legend"] = LEGEND
    return {"data": data, "layout": layout}


def _build_line(x: Sequence[float], y: Sequence[float | None], name: str, role: str) -> Figure:
    return {
        "type": "scatter",
        "x": list(x),
        "y": list(y),
        "mode": "lines",
        "name": name,
        "line": {"width": 2.4},
        "meta": {"role": role},
        "hovertemplate": "%{y:.3%}",
    }


def _build_shape(kind: str, ends: Sequence[float], role: str, style: Figure) -> Figure:
    """A line or a rectangle over the whole height."""
    span = {"xref": "x", "yref": "paper", "x0": ends[0], "x1": ends[1], "y0": 0, "y1": 1}
    return {"type": kind, "name": role} | span | style


def _find_span(
    shown: Sequence[tuple[float, float, float]], points: Sequence[OperatingPoint]
) -> tuple[float, float]:
    """The thresholds between which a rate is neither next to nothing nor nearly all; with the points."""
    telling = [threshold for threshold, far, frr in shown if far > 5e-5 and frr < 0.9 and far < 0.5]
    telling = telling or [threshold for threshold, _, _ in shown]
    telling += [point.threshold for point in points]
    room = 0.04 * (max(telling) - min(telling) or 1.0)
    return min(telling) - room, max(telling) + room


def _build_layout(points: Sequence[OperatingPoint], span: tuple[float, float]) -> Figure:
    """Axes over a span of scores, with a dashed line and a name for every operating point in it."""
    inside = sorted(
        (point for point in points if span[0] <= point.threshold <= span[1]),
        key=lambda point: point.threshold,
    )
    middle = sum(span) / 2
    return {
        "xaxis": {"title": {"text": "threshold (score)"}, "range": list(span), "tickformat": ".2f"},
        "shapes": [
            _build_shape("line", [point.threshold] * 2, "ink", {"line": {"width": 1.4, "dash": "dash"}})
            for point in inside
        ],
        "annotations": [
            {
                "x": point.threshold,
                "xref": "x",
                "y": 0.99 - 0.085 * number,
                "yref": "paper",
                "text": point.name,
                "showarrow": False,
                "xanchor": "left" if point.threshold < middle else "right",
                "yanchor": "top",
                "name": "ink",
            }
            for number, point in enumerate(inside)
        ],
        "hovermode": "x unified",
    }


LIGHT: Final = {
    "ground": "#f6f5f1",
    "card": "#ffffff",
    "line": "#e4e1d8",
    "grid": "#ebe8e0",
    "ink": "#17212b",
    "soft": "#5b6570",
    "accent": "#0b7a6b",
    "accent-wash": "#0b7a6b1f",
    "warm": "#c8501a",
    "cool": "#3458b8",
}


DARK: Final = {
    "ground": "#0e1419",
    "card": "#161e25",
    "line": "#25303a",
    "grid": "#222d37",
    "ink": "#e9eef2",
    "soft": "#a3afba",
    "accent": "#4fd1b5",
    "accent-wash": "#4fd1b526",
    "warm": "#ff9d5c",
    "cool": "#8fb0ff",
}
