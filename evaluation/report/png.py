"""Charts as PNG files, painted by matplotlib without a display."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.report.charts import LIGHT, Chart, read_curves

WIDTH, HEIGHT, DPI = 8.0, 4.2, 150


def draw_png(chart: Chart) -> bytes:
    """One chart with its title on a light ground; the chart must have a figure."""
    assert chart.figure is not None
    picture = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=LIGHT["card"], layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.set_title(chart.title, loc="left", color=LIGHT["ink"], fontsize=12, fontweight="bold")
    layout = chart.figure["layout"]
    axes.set_facecolor(LIGHT["card"])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT["line"])
    axes.grid(color=LIGHT["grid"], linewidth=0.8)
    axes.tick_params(colors=LIGHT["soft"], labelsize=9)
    x, y = layout["xaxis"], layout["yaxis"]
    axes.set_xlabel(x["title"]["text"], color=LIGHT["soft"], fontsize=9)
    axes.set_ylabel(y["title"]["text"], color=LIGHT["soft"], fontsize=9)
    if y.get("type") == "log":
        axes.set_yscale("log")
        axes.set_ylim(*(10.0**end for end in y["range"]))
        axes.set_yticks(y["tickvals"], y["ticktext"])
        axes.minorticks_off()
    for curve in read_curves(chart.figure):
        if curve.base is None:
            axes.plot(curve.x, _fill_gaps(curve.y), color=LIGHT[curve.role], linewidth=2, label=curve.name)
        else:
            wash = LIGHT[f"{curve.role}-wash"]
            axes.fill_between(curve.x, _fill_gaps(curve.y), _fill_gaps(curve.base), color=wash, linewidth=0)
    if layout.get("showlegend", True):
        axes.legend(frameon=False, fontsize=9, labelcolor=LIGHT["ink"], loc="upper right")
    for shape in layout["shapes"]:
        if shape["type"] == "rect":
            axes.axvspan(shape["x0"], shape["x1"], color=LIGHT[shape["name"]], linewidth=0, zorder=0)
        else:
            axes.axvline(shape["x0"], color=LIGHT[shape["name"]], linewidth=1.2, linestyle="--")
    for note in layout["annotations"]:
        axes.annotate(
            f" {note['text']} ",
            (note["x"], note["y"]),
            xycoords=("data", "axes fraction"),
            ha=note["xanchor"],
            va=note["yanchor"],
            color=LIGHT[note["name"]],
            fontsize=9,
        )
    low, high = x["range"]
    if low < high:  # scores that are all equal have no span of their own
        axes.set_xlim(low, high)
    file = io.BytesIO()
    picture.savefig(file, format="png")
    return file.getvalue()


def _fill_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
