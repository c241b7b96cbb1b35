"""The pictures of a report: plotly figures whose colours are roles, painted in light or dark.

One description, three painters: the dashboard (plotly), ``report.html`` (``evaluation.html``, vector
graphics without a script) and PNG files (``evaluation.plots``). A trace or shape names its colour:
``meta.role`` or ``name`` is accent, warm, cool, ink or accent-wash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api_schemas.diagnosis import ReliabilityDiagram
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report


@dataclass(frozen=True)
class Chart:
    """One chart; ``figure`` is None where the report has no such curve."""

    id: str
    title: str
    caption: str
    empty: str
    figure: dict[str, Any] | None


def reliability_chart(found: ReliabilityDiagram) -> Chart:
    """Probabilities beside what came true."""
    data = [
        _line([0.0, 1.0], [0.0, 1.0], "as promised", "cool"),
        _line(found.predicted, found.observed, "as observed", "accent"),
    ]
    layout = _layout([], (0.0, 1.0)) | {
        "yaxis": {"title": {"text": "share of matches"}, "rangemode": "normal", "tickformat": ".2f"},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    }
    layout["xaxis"]["title"] = {"text": "probability of a match"}
    return Chart(
        "reliability",
        "Is the probability true?",
        f"Pairs in bins of equal weight by the probability of a match ({found.kind}, prior {found.prior:g}), "
        f"and how many of them match. Mean gap (ECE) {found.ece:.4f}, Brier score {found.brier:.4f}, "
        f"log loss {found.log_loss:.4f}.",
        "",
        {"data": data, "layout": layout},
    )


def build_charts(report: Report, points: Sequence[OperatingPoint]) -> list[Chart]:
    """The two pictures of a threshold: what it does to each class, and what it does to pairs.

    Points that threshold another score than the report's have no place on its axis and are left out.
    """
    points = [point for point in points if point.score == report.score]
    return [
        Chart(
            "utility",
            "One threshold, every class",
            "Mean utility of the classes against the threshold; nine in ten classes lie in the band. "
            "The thinner the band, the more evenly a threshold holds.",
            "Utility needs classes with at least two items.",
            _utility(report, points),
        ),
        Chart(
            "rates",
            "Where to cut",
            "False acceptance and false rejection of pairs against the threshold, with the operating points. "
            "The shaded range is the one that OPIS looks at.",
            "Rates need pairs of one class and pairs of two.",
            _rates(report, points),
        ),
    ]


def _utility(report: Report, points: Sequence[OperatingPoint]) -> dict[str, Any] | None:
    found = report.consistency
    if len(found.thresholds) < 2 or not found.mean_utility:
        return None
    x = found.thresholds
    hidden = {"type": "scatter", "x": x, "mode": "lines", "line": {"width": 0}, "showlegend": False}
    data = [
        hidden | {"y": found.band.p95, "name": "95th percentile", "hovertemplate": "%{y:.3f}"},
        hidden
        | {
            "y": found.band.p05,
            "name": "5th percentile",
            "fill": "tonexty",
            "meta": {"role": "accent", "fill": True},
            "hovertemplate": "%{y:.3f}",
        },
        {
            "type": "scatter",
            "x": x,
            "y": found.mean_utility,
            "mode": "lines",
            "name": "mean utility",
            "line": {"width": 2.6},
            "meta": {"role": "accent"},
            "hovertemplate": "%{y:.3f}",
        },
    ]
    low, high = min(x), max(x)
    layout = _layout(points, (low, high)) | {
        "yaxis": {"title": {"text": "utility"}, "rangemode": "normal", "tickformat": ".2f"},
        "showlegend": False,
    }
    return {"data": data, "layout": layout}


def _rates(report: Report, points: Sequence[OperatingPoint]) -> dict[str, Any] | None:
    curve = report.verification.curve
    if curve is None or len(curve.threshold) < 2:
        return None
    shown = [
        (threshold, far, frr)
        for threshold, far, frr in zip(curve.threshold, curve.far, curve.frr, strict=True)
        if far < 0.6 or frr > 0
    ]
    x = [one[0] for one in shown]
    data = [
        _rate(x, [one[1] for one in shown], "false acceptance (FAR)", "warm"),
        _rate(x, [one[2] for one in shown], "false rejection (FRR)", "cool"),
    ]
    low, high = _span(shown, points)
    layout = _layout(points, (low, high))
    reach = report.consistency.calibration_range
    if reach is not None:
        layout["shapes"].append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": min(reach.score),
                "x1": max(reach.score),
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"width": 0},
                "name": "accent-wash",
            }
        )
    layout["yaxis"] = {
        "type": "log",
        "title": {"text": "share of pairs"},
        "range": [-4, 0],
        "tickvals": [0.0001, 0.001, 0.01, 0.1, 1],
        "ticktext": ["0.01 %", "0.1 %", "1 %", "10 %", "100 %"],
    }
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return {"data": data, "layout": layout}


def _rate(x: list[float], y: list[float], name: str, role: str) -> dict[str, Any]:
    return _line(x, [value if value > 0 else None for value in y], name, role)


def _line(x: Sequence[float], y: Sequence[float | None], name: str, role: str) -> dict[str, Any]:
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


def _span(
    shown: Sequence[tuple[float, float, float]], points: Sequence[OperatingPoint]
) -> tuple[float, float]:
    """The thresholds between which a rate is neither next to nothing nor nearly all; with the points."""
    telling = [threshold for threshold, far, frr in shown if far > 5e-5 and frr < 0.9 and far < 0.5]
    telling = telling or [one[0] for one in shown]
    telling += [point.threshold for point in points]
    room = 0.04 * (max(telling) - min(telling) or 1.0)
    return min(telling) - room, max(telling) + room


def _layout(points: Sequence[OperatingPoint], span: tuple[float, float]) -> dict[str, Any]:
    inside = sorted(
        (point for point in points if span[0] <= point.threshold <= span[1]),
        key=lambda point: point.threshold,
    )
    middle = sum(span) / 2
    return {
        "xaxis": {"title": {"text": "threshold (score)"}, "range": list(span), "tickformat": ".2f"},
        "shapes": [
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": point.threshold,
                "x1": point.threshold,
                "y0": 0,
                "y1": 1,
                "line": {"width": 1.4, "dash": "dash"},
                "name": "ink",
            }
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
