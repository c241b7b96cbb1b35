"""Reports of sets so small, or so alike, that rates have no denominator and charts no span."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from evaluation.diagnose import diagnose
from evaluation.report.text_table import format_table
from evaluation.report.write_report import write_report
from tests.evaluation.samples import evaluate

SETS = {
    "two classes of two": EmbeddingSet.from_arrays(np.eye(4) + 0.2, [0, 0, 1, 1]),
    "two classes, one item in one": EmbeddingSet.from_arrays(np.eye(3) + 0.2, [0, 0, 1]),
    "all vectors equal": EmbeddingSet.from_arrays(np.ones((6, 3)), [0, 0, 1, 1, 2, 2]),
    "nothing confused": EmbeddingSet.from_arrays(np.repeat(np.eye(3), 2, axis=0), [0, 0, 1, 1, 2, 2]),
    "everything confused": EmbeddingSet.from_arrays(np.tile(np.eye(2), (2, 1)), [0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", SETS)
def test_a_small_set_has_a_report_a_page_and_plots(name: str, tmp_path: Path) -> None:
    items = SETS[name]
    report = evaluate(items)
    assert "recall@1" in format_table(report)
    write_report(report, tmp_path, [], diagnose(items, model_hash="m", split="all"))
    assert (tmp_path / "report.html").stat().st_size > 1_000
    assert "nan" not in (tmp_path / "report.json").read_text().lower()
