"""A run's network beside the teacher that it followed, on the items that the run is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api_schemas.comparison import Comparison
from api_schemas.report import Report
from common.progress import Track
from embeddings.files import read_embeddings
from evaluation.comparison.compare import compare_models

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run


def compare_with_teacher(run: Run, track: Track) -> Comparison | None:
    """The teacher (a) and the student (b); None where the run has no embeddings by a teacher."""
    from training.run_folder.layout import get_teacher_path

    path, measured = (
        get_teacher_path(run.path),
        run.load_embeddings("test") or run.load_embeddings("validation"),
    )
    if measured is None or not path.is_file():
        return None
    return compare_models(
        read_embeddings(path),
        measured,
        model_hash_a="",
        model_hash_b="",
        exclude_same=run.config.evaluation.exclude_same,
        track=track,
    )


def add_teacher(report: Report, run: Run, track: Track) -> Report:
    """The report with the figures of the teacher beside those of the student."""
    comparison = compare_with_teacher(run, track)
    return (
        report if comparison is None else report.model_copy(update={"beside_teacher": comparison.differences})
    )
