"""The main figures of every version's hold-out report, also of those that are not loaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from api_schemas.http.admin import ModelFigures
from api_schemas.manifest import REPORT_FILE
from api_schemas.report import Report
from common.errors import LimenError

SHOWN_FPIR = "0.01"
KEPT = 256


def summarize_report(report: Report) -> ModelFigures:
    """The figures of a report that versions are compared by."""
    consistency, identification = report.consistency, report.identification
    return ModelFigures(
        recall_at_1=report.retrieval.recall_at_1,
        opis=consistency.opis if consistency.opis_debiased is None else consistency.opis_debiased,
        opis_ci=consistency.opis_ci,
        eer=report.verification.eer,
        fnir=None if identification is None else identification.fnir_at_fpir.get(SHOWN_FPIR),
        items=report.counts.items,
        classes=report.counts.classes,
    )


def read_figures(bundle: Path) -> ModelFigures | None:
    """The figures of a bundle's report, read again when it changes; None where it has none."""
    file = bundle / REPORT_FILE
    try:
        state = file.stat()
    except OSError:
        return None
    return _read(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=KEPT)
def _read(file: Path, modified: int, size: int) -> ModelFigures | None:
    try:
        return summarize_report(Report.load(file))
    except LimenError:
        return None
