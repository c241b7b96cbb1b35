"""The table for the terminal."""

from __future__ import annotations

from evaluation.report.text_table import format_table
from tests.evaluation.report.reports import make_report, make_tiny_report


def test_the_table_gives_the_figures_and_the_worst_classes() -> None:
    report = make_report()
    table = format_table(report)
    assert f"{report.consistency.opis:.5f}" in table
    assert "accepted at FAR 1 %" in table
    assert "who is this, of 14 classes (112 items)?" in table
    assert "<class" in table
    assert max(map(len, table.splitlines())) < 140


def test_the_table_gives_the_reasons_for_what_is_missing() -> None:
    table = format_table(make_tiny_report())
    assert "Note: OPIS compares classes" in table
    assert "Worst classes" not in table
