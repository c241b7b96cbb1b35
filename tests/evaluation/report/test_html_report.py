"""The page: it stands alone, escapes what people named, and shows a diagnosis."""

from __future__ import annotations

import re

import numpy as np
import pytest

from api_schemas.diagnosis import Diagnosis
from api_schemas.report import Report
from evaluation.report.charts import build_charts
from evaluation.report.headline import format_small, select_worst_classes
from evaluation.report.html_report import render_html
from tests.evaluation.report.reports import Tags, make_point


def escape(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")


def test_the_page_stands_alone_and_names_classes_safely(report: Report) -> None:
    points = [make_point()]
    page = render_html(report, build_charts(report, points), points)
    tags = Tags(page)
    assert tags.open == []
    assert tags.links == []
    assert "script" not in tags.names
    assert not re.search(r"https?://", page)
    assert tags.names.count("svg") == 2
    worst = select_worst_classes(report, 10)
    assert len(worst) == 10
    for row in worst:
        assert escape(row.label) in page
    assert "<class" not in page
    assert "far-1 &amp; more" in page
    assert "<td>FAR 1 %</td><td>0.7000</td><td>1 %</td><td>20 %</td>" in page
    assert format_small(report.consistency.opis_debiased) in page
    assert "prefers-color-scheme:dark" in page
    assert "nan" not in page.lower().replace("dominant", "")


def test_a_diagnosed_page_shows_groups_hardest_pairs_and_whether_the_probability_is_true(
    report: Report, diagnosis: Diagnosis
) -> None:
    page = render_html(report, build_charts(report, [], diagnosis), diagnosis=diagnosis)
    assert Tags(page).open == []
    assert "camera = left" in page
    for pair in (*diagnosis.hardest_genuine[:10], *diagnosis.hardest_impostor[:10]):
        assert escape(pair.a) in page
    gaps = np.abs(np.subtract(diagnosis.reliability.predicted, diagnosis.reliability.observed))
    assert diagnosis.reliability.ece == pytest.approx(np.dot(diagnosis.reliability.share, gaps))
    assert f"{diagnosis.reliability.ece:.4f}" in page
    assert Tags(page).names.count("svg") == 3
