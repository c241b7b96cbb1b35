"""What the page of a class draws: its scores beside the threshold; and how its address is written."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from api_schemas.http.classes import ScoreHistogram
from evaluation.report.headline import format_number

WIDTH, HEIGHT = 640.0, 180.0
CLASSES_PATH = "/dashboard/classes"


@dataclass(frozen=True)
class HistogramDrawing:
    """Outlines of the two histograms in a box of 640 x 180, each as high as the box, and the threshold."""

    genuine: str
    impostor: str
    threshold: float | None
    low: str
    high: str


def draw_histogram(histogram: ScoreHistogram, threshold: float | None) -> HistogramDrawing:
    """Step outlines of the counts of both kinds of pairs."""
    low, high = histogram.edges[0], histogram.edges[-1]
    at = None if threshold is None else WIDTH * (threshold - low) / (high - low)
    return HistogramDrawing(
        genuine=_draw_steps(histogram.genuine),
        impostor=_draw_steps(histogram.impostor),
        threshold=None if at is None else round(min(max(at, 1.0), WIDTH - 1.0), 1),
        low=format_number(low),
        high=format_number(high),
    )


def build_class_url(label: str) -> str:
    """The address of a class's page; browsers take a path that ends in dots for another one."""
    if label in {".", ".."}:
        return f"{CLASSES_PATH}/?label={quote(label)}"
    return f"{CLASSES_PATH}/{quote(label, safe='')}"


def _draw_steps(counts: list[int]) -> str:
    most = max(counts, default=0)
    if not most:
        return ""
    width = WIDTH / len(counts)
    parts = [f"M0 {HEIGHT:g}"]
    for number, count in enumerate(counts):
        y = round(HEIGHT - (HEIGHT - 6) * count / most, 1)
        parts.append(f"V{y:g}H{round(width * (number + 1), 1):g}")
    return "".join([*parts, f"V{HEIGHT:g}Z"])
