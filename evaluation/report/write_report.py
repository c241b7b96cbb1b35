"""A report for people: files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from common.atomic_files import write_atomically
from evaluation.report.charts import build_charts
from evaluation.report.html_report import render_html
from evaluation.report.png import draw_png


def write_report(
    report: Report,
    folder: Path,
    operating_points: Sequence[OperatingPoint] = (),
    diagnosis: Diagnosis | None = None,
) -> None:
    """Write ``report.json``, ``report.html`` (one file, no network) and a PNG for every chart.

    With a diagnosis also ``diagnosis.json``; the page then shows its groups, hardest pairs and reliability.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report.save(folder / "report.json")
    if diagnosis is not None:
        diagnosis.save(folder / "diagnosis.json")
    charts = build_charts(report, operating_points, diagnosis)
    page = render_html(report, charts, operating_points, diagnosis)
    write_atomically(folder / "report.html", page.encode())
    for chart in charts:
        if chart.figure is not None:
            write_atomically(folder / f"{chart.id}.png", draw_png(chart))
