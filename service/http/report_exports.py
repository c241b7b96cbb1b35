"""A report as a file: JSON, a table of its classes as CSV, a page that stands alone, a chart as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from api_schemas.operating_point import OperatingPoint
from api_schemas.report import ClassConsistency, Report
from common.csv_cells import escape_formula
from evaluation.report.charts import build_charts
from evaluation.report.html_report import render_html
from service.errors.problems import NOT_FOUND, ServiceProblem

ExportFormat = Literal["json", "csv", "html", "png"]
MEDIA_TYPES: dict[ExportFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "png": "image/png",
}
CSV_HEAD = list(ClassConsistency.model_fields)


def export_report(
    report: Report, points: Sequence[OperatingPoint], kind: ExportFormat, chart: str | None = None
) -> bytes:
    """The bytes of a file.

    Args:
        chart: the id of the chart of a picture; the first that the report has unless given.

    Raises:
        ServiceProblem: there is no such chart in this report.
    """
    return _EXPORTS[kind](report, points, chart)


def _write_json(report: Report, points: Sequence[OperatingPoint], chart: str | None) -> bytes:
    return report.to_json().encode()


def _write_csv(report: Report, points: Sequence[OperatingPoint], chart: str | None) -> bytes:
    """A row a class: label, items, FAR, FRR and utility over the calibration range, its part of OPIS."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_HEAD)
    for row in report.consistency.per_class:
        cells = [getattr(row, name) for name in CSV_HEAD]
        writer.writerow([escape_formula(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue().encode("utf-8", "replace")


def _write_html(report: Report, points: Sequence[OperatingPoint], chart: str | None) -> bytes:
    return render_html(report, build_charts(report, points), points).encode("utf-8", "replace")


def _draw_chart(report: Report, points: Sequence[OperatingPoint], chart: str | None) -> bytes:
    # matplotlib takes a moment to be imported, which only a picture needs
    from evaluation.report.png import draw_png

    drawable = {one.id: one for one in build_charts(report, points) if one.figure is not None}
    wanted = next(iter(drawable), "") if chart is None else chart
    if wanted not in drawable:
        has = f"it has {', '.join(drawable)}" if drawable else "it has none"
        raise ServiceProblem(NOT_FOUND, f"This report has no chart '{wanted[:40]}'; {has}.")
    return draw_png(drawable[wanted])


_EXPORTS: dict[ExportFormat, Callable[[Report, Sequence[OperatingPoint], str | None], bytes]] = {
    "json": _write_json,
    "csv": _write_csv,
    "html": _write_html,
    "png": _draw_chart,
}
assert set(_EXPORTS) == set(get_args(ExportFormat))
