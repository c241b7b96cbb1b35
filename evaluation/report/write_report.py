"""A report for people: files in a folder, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from common.atomic_files import write_atomically
from evaluation.report.charts import build_charts, reliability_chart
from evaluation.report.html_report import page
from evaluation.report.png import png
from evaluation.report.text_table import format_table

__all__ = ["format_table", "write_report"]


def write_report(
    report: Report,
    folder: Path,
    operating_points: Sequence[OperatingPoint] = (),
    diagnosis: Diagnosis | None = None,
) -> None:
    """Write ``report.json``, ``report.html`` (one file, no network) and a PNG for every figure.

    With a diagnosis also ``diagnosis.json``; the page then shows its groups, hardest pairs and reliability.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report.save(folder / "report.json")
    drawn = build_charts(report, operating_points)
    if diagnosis is not None:
        diagnosis.save(folder / "diagnosis.json")
        if diagnosis.reliability is not None:
            drawn.append(reliability_chart(diagnosis.reliability))
    write_atomically(folder / "report.html", page(report, drawn, operating_points, diagnosis).encode())
    for one in drawn:
        if one.figure is not None:
            write_atomically(folder / f"{one.id}.png", png(one))
