"""Figures as PNG files, painted by matplotlib without a display."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.report.charts import Chart
from evaluation.report.palette import LIGHT

WIDTH, HEIGHT, DPI = 8.0, 4.2, 150


def png(chart: Chart) -> bytes:
    """One chart with its title on a light ground; the chart must have a figure."""
    assert chart.figure is not None
    picture = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=LIGHT["card"], layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    axes.set_title(chart.title, loc="left", color=LIGHT["ink"], fontsize=12, fontweight="bold")
    layout = chart.figure["layout"]
    before: list[float] = []
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
    for trace in chart.figure["data"]:
        meta = trace.get("meta", {})
        values = [float("nan") if value is None else value for value in trace["y"]]
        if meta.get("fill"):
            axes.fill_between(trace["x"], values, before, color=LIGHT[f"{meta['role']}-wash"], linewidth=0)
        elif meta:
            axes.plot(trace["x"], values, color=LIGHT[meta["role"]], linewidth=2, label=trace["name"])
        before = values
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
    axes.set_xlim(*x["range"])
    file = io.BytesIO()
    picture.savefig(file, format="png")
    return file.getvalue()
