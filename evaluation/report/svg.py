"""Charts as vector graphics inside a page: no script, colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from evaluation.report.charts import Chart, Curve, read_curves

WIDTH, HEIGHT = 720.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 30.0, 44.0

Scale = Callable[[float], float]


def draw_svg(chart: Chart) -> str:
    """One chart as an ``<svg>`` element; it must have a figure.

    Classes ``stroke-*`` and ``fill-*`` name the colours.
    """
    assert chart.figure is not None
    layout, title, curves = chart.figure["layout"], chart.title, read_curves(chart.figure)
    x, x_ticks = _build_x_axis(layout["xaxis"])
    y, y_ticks = _build_y_axis(layout["yaxis"], chart.figure["data"])
    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{_build_id(title)}"><rect x="{LEFT:g}" y="{TOP:g}" width="{WIDTH - LEFT - RIGHT:g}" '
        f'height="{HEIGHT - TOP - BOTTOM:g}"/></clipPath>',
    ]
    for at, text in y_ticks:
        parts.append(
            f'<line class="stroke-grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(f'<text class="tick" x="{LEFT - 8:g}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    for at, text in x_ticks:
        parts.append(
            f'<line class="stroke-grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}"/>'
        )
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18:g}" text-anchor="middle">{text}</text>'
        )
    parts.append(f'<g clip-path="url(#{_build_id(title)})">')
    parts += _draw_shapes(layout["shapes"], x)
    parts += _draw_curves(curves, x, y)
    parts.append("</g>")
    parts += _draw_notes(layout["annotations"], x)
    if layout.get("showlegend", True):
        parts += _draw_legend(curves)
    parts += [
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6:g}" text-anchor="middle">'
        f"{escape(layout['xaxis']['title']['text'])}</text>",
        f'<text class="tick" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" '
        f'text-anchor="middle">{escape(layout["yaxis"]["title"]["text"])}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _draw_line(classes: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _build_id(title: str) -> str:
    return "inside-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def _build_scale(low: float, high: float, start: float, end: float) -> Scale:
    width = high - low or 1.0
    return lambda value: start + (value - low) / width * (end - start)


def _build_x_axis(axis: dict[str, Any]) -> tuple[Scale, list[tuple[float, str]]]:
    low, high = axis["range"]
    scale = _build_scale(low, high, LEFT, WIDTH - RIGHT)
    return scale, [(scale(tick), text) for tick, text in _choose_ticks(low, high)]


def _build_y_axis(axis: dict[str, Any], data: list[dict[str, Any]]) -> tuple[Scale, list[tuple[float, str]]]:
    if axis.get("type") == "log":
        low, high = axis["range"]
        inner = _build_scale(low, high, HEIGHT - BOTTOM, TOP)

        def scale(value: float) -> float:
            return inner(math.log10(max(value, 1e-12)))

        ticks = [(scale(v), str(t)) for v, t in zip(axis["tickvals"], axis["ticktext"], strict=True)]
        return scale, ticks
    values = [value for trace in data for value in trace["y"] if value is not None]
    low, high = min(values), max(values)
    room = 0.05 * (high - low or 1.0)
    straight = _build_scale(low - room, high + room, HEIGHT - BOTTOM, TOP)
    return straight, [(straight(tick), text) for tick, text in _choose_ticks(low - room, high + room)]


def _choose_ticks(low: float, high: float) -> list[tuple[float, str]]:
    width = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(width / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if width / (step * factor) <= 7)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    return [(k * step, f"{k * step:.{digits}f}") for k in range(first, math.floor(high / step) + 1)]


def _split_runs(
    x_values: Sequence[float], y_values: Sequence[float | None], x: Scale, y: Scale
) -> Iterator[list[str]]:
    """Points of a curve as text, one list for each stretch without a gap."""
    run: list[str] = []
    for a, b in zip(x_values, y_values, strict=True):
        if b is None:
            if run:
                yield run
            run = []
        else:
            run.append(f"{x(a):.1f} {y(b):.1f}")
    if run:
        yield run


def _draw_curves(curves: list[Curve], x: Scale, y: Scale) -> list[str]:
    parts = []
    for curve in curves:
        runs = list(_split_runs(curve.x, curve.y, x, y))
        if curve.base is None:
            lines = "".join(f"M{'L'.join(run)}" for run in runs)
            parts.append(f'<path class="curve stroke-{curve.role}" d="{lines}"/>')
        else:
            there = [point for run in _split_runs(curve.x, curve.base, x, y) for point in run]
            back = [point for run in runs for point in run][::-1]
            parts.append(f'<path class="fill-{curve.role}-wash" d="M{"L".join(there + back)}Z"/>')
    return parts


def _draw_shapes(shapes: list[dict[str, Any]], x: Scale) -> list[str]:
    parts = []
    for shape in shapes:
        a, b = x(shape["x0"]), x(shape["x1"])
        if shape["type"] == "rect":
            parts.append(
                f'<rect class="fill-{shape["name"]}" x="{min(a, b):.1f}" y="{TOP:g}" '
                f'width="{abs(b - a):.1f}" height="{HEIGHT - TOP - BOTTOM:g}"/>'
            )
        else:
            parts.append(_draw_line(f"mark stroke-{shape['name']}", (a, TOP), (a, HEIGHT - BOTTOM)))
    return parts


def _draw_notes(notes: list[dict[str, Any]], x: Scale) -> list[str]:
    height = HEIGHT - TOP - BOTTOM
    return [
        f'<text class="note" x="{x(note["x"]) + (6 if note["xanchor"] == "left" else -6):.1f}" '
        f'y="{TOP + (1 - note["y"]) * height + 12:.1f}" '
        f'text-anchor="{"start" if note["xanchor"] == "left" else "end"}">{escape(note["text"])}</text>'
        for note in notes
    ]


def _draw_legend(curves: list[Curve]) -> list[str]:
    parts, at = [], LEFT
    for curve in curves:
        parts.append(_draw_line(f"curve stroke-{curve.role}", (at, 14), (at + 22, 14)))
        parts.append(f'<text class="tick" x="{at + 28:g}" y="18">{escape(curve.name)}</text>')
        at += 48 + 6.6 * len(curve.name)
    return parts
