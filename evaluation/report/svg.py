"""Figures as vector graphics inside a page: no script, colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

WIDTH, HEIGHT = 720.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 30.0, 44.0

Scale = Callable[[float], float]


def svg(figure: dict[str, Any], title: str) -> str:
    """One figure as an ``<svg>`` element; classes ``stroke-*`` and ``fill-*`` name the colours."""
    layout = figure["layout"]
    x, x_ticks = _x_axis(layout["xaxis"])
    y, y_ticks = _y_axis(layout["yaxis"], figure["data"])
    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{_id(title)}"><rect x="{LEFT:g}" y="{TOP:g}" width="{WIDTH - LEFT - RIGHT:g}" '
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
    parts.append(f'<g clip-path="url(#{_id(title)})">')
    parts += _shapes(layout["shapes"], x)
    parts += _traces(figure["data"], x, y)
    parts.append("</g>")
    parts += _notes(layout["annotations"], x)
    if layout.get("showlegend", True):
        parts += _legend(figure["data"])
    parts += [
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6:g}" text-anchor="middle">'
        f"{escape(layout['xaxis']['title']['text'])}</text>",
        f'<text class="tick" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" '
        f'text-anchor="middle">{escape(layout["yaxis"]["title"]["text"])}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _line(classes: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _id(title: str) -> str:
    return "inside-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    width = high - low or 1.0
    return lambda value: start + (value - low) / width * (end - start)


def _x_axis(axis: dict[str, Any]) -> tuple[Scale, list[tuple[float, str]]]:
    low, high = axis["range"]
    scale = _linear(low, high, LEFT, WIDTH - RIGHT)
    return scale, [(scale(tick), text) for tick, text in _round_ticks(low, high)]


def _y_axis(axis: dict[str, Any], data: list[dict[str, Any]]) -> tuple[Scale, list[tuple[float, str]]]:
    if axis.get("type") == "log":
        low, high = axis["range"]
        inner = _linear(low, high, HEIGHT - BOTTOM, TOP)

        def scale(value: float) -> float:
            return inner(math.log10(max(value, 1e-12)))

        ticks = [(scale(v), str(t)) for v, t in zip(axis["tickvals"], axis["ticktext"], strict=True)]
        return scale, ticks
    values = [value for trace in data for value in trace["y"] if value is not None]
    low, high = min(values), max(values)
    room = 0.05 * (high - low or 1.0)
    straight = _linear(low - room, high + room, HEIGHT - BOTTOM, TOP)
    return straight, [(straight(tick), text) for tick, text in _round_ticks(low - room, high + room)]


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    width = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(width / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if width / (step * factor) <= 7)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    return [(k * step, f"{k * step:.{digits}f}") for k in range(first, math.floor(high / step) + 1)]


def _runs(trace: dict[str, Any], x: Scale, y: Scale) -> Iterator[list[str]]:
    run: list[str] = []
    for a, b in zip(trace["x"], trace["y"], strict=True):
        if b is None:
            if run:
                yield run
            run = []
        else:
            run.append(f"{x(a):.1f} {y(b):.1f}")
    if run:
        yield run


def _traces(data: list[dict[str, Any]], x: Scale, y: Scale) -> list[str]:
    parts, before = [], None
    for trace in data:
        meta = trace.get("meta", {})
        if meta.get("fill") and before is not None:
            there = [point for run in _runs(before, x, y) for point in run]
            back = [point for run in _runs(trace, x, y) for point in run][::-1]
            parts.append(f'<path class="fill-{meta["role"]}-wash" d="M{"L".join(there + back)}Z"/>')
        elif meta:
            lines = "".join(f"M{'L'.join(run)}" for run in _runs(trace, x, y))
            parts.append(f'<path class="curve stroke-{meta["role"]}" d="{lines}"/>')
        before = trace
    return parts


def _shapes(shapes: list[dict[str, Any]], x: Scale) -> list[str]:
    parts = []
    for shape in shapes:
        a, b = x(shape["x0"]), x(shape["x1"])
        if shape["type"] == "rect":
            parts.append(
                f'<rect class="fill-{shape["name"]}" x="{min(a, b):.1f}" y="{TOP:g}" '
                f'width="{abs(b - a):.1f}" height="{HEIGHT - TOP - BOTTOM:g}"/>'
            )
        else:
            parts.append(_line(f"mark stroke-{shape['name']}", (a, TOP), (a, HEIGHT - BOTTOM)))
    return parts


def _notes(notes: list[dict[str, Any]], x: Scale) -> list[str]:
    height = HEIGHT - TOP - BOTTOM
    return [
        f'<text class="note" x="{x(note["x"]) + (6 if note["xanchor"] == "left" else -6):.1f}" '
        f'y="{TOP + (1 - note["y"]) * height + 12:.1f}" '
        f'text-anchor="{"start" if note["xanchor"] == "left" else "end"}">{escape(note["text"])}</text>'
        for note in notes
    ]


def _legend(data: list[dict[str, Any]]) -> list[str]:
    parts, at = [], LEFT
    for trace in data:
        role = trace.get("meta", {}).get("role")
        if role is None:
            continue
        parts.append(_line(f"curve stroke-{role}", (at, 14), (at + 22, 14)))
        parts.append(f'<text class="tick" x="{at + 28:g}" y="18">{escape(trace["name"])}</text>')
        at += 48 + 6.6 * len(trace["name"])
    return parts
