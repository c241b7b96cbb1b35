"""The one list of headline figures, how numbers are written, and who shows them."""

from __future__ import annotations

import pytest

from api_schemas.operating_point import Target
from api_schemas.report import Report
from evaluation.report.charts import build_charts
from evaluation.report.headline import (
    HEADLINES,
    TILES,
    format_number,
    format_percent,
    format_small,
    format_target,
    select_rates,
    select_tiles,
    select_worst_classes,
)
from evaluation.report.html_report import render_html
from evaluation.report.text_table import format_table
from tests.evaluation.report.reports import make_report, make_tiny_report


@pytest.mark.parametrize(
    ("value", "percent", "number", "small"),
    [
        (None, "–", "–", "–"),
        (0.0, "0 %", "0.0000", "0.00000"),
        (0.98765, "98.8 %", "0.9877", "0.98765"),
        (0.00123, "0.123 %", "0.0012", "0.00123"),
        (0.000021, "0.0021 %", "0.0000", "2.1 × 10⁻⁵"),
        (-0.00003, "-0.003 %", "-0.0000", "-3.0 × 10⁻⁵"),
    ],
)
def test_numbers_are_written_in_three_ways(
    value: float | None, percent: str, number: str, small: str
) -> None:
    assert (format_percent(value), format_number(value), format_small(value)) == (percent, number, small)


def test_a_title_names_its_epsilon(report: Report) -> None:
    line = next(line for line in format_table(report).splitlines() if "ε-OPIS" in line)
    assert "ε = 0.1" in line
    assert format_small(report.consistency.epsilon_opis["0.1"]) in line


def test_keys_are_distinct_and_tiles_are_among_them() -> None:
    keys = [headline.key for headline in HEADLINES]
    assert len(set(keys)) == len(keys)
    assert set(TILES) <= set(keys)


def test_figures_are_those_of_the_report(report: Report) -> None:
    figures = {headline.key: headline.format(report) for headline in HEADLINES}
    assert figures["eer"] == format_percent(report.verification.eer)
    assert figures["tar_at_far_0.01"] == format_percent(report.verification.tar_at_far["0.01"])
    assert figures["fnir_at_fpir_0.1"] == format_percent(report.identification.fnir_at_fpir["0.1"])
    assert figures["epsilon_opis_0.1"] == format_small(report.consistency.epsilon_opis["0.1"])
    assert figures["auc"] == format_number(report.verification.auc)
    for name in ("opis", "opis_debiased", "opis_logfar", "opis_logfar_debiased"):
        assert figures[name] == format_small(getattr(report.consistency, name))
    for name in ("recall_at_1", "recall_at_10", "r_precision", "map_at_r"):
        assert figures[name] == format_percent(getattr(report.retrieval, name))


def test_the_table_shows_every_headline_and_the_page_every_tile(report: Report) -> None:
    table = format_table(report)
    page = render_html(report, build_charts(report, []))
    for headline in HEADLINES:
        line = next(line for line in table.splitlines() if line.strip().startswith(f"{headline.title} "))
        assert headline.format(report) in line
        assert headline.format_interval(report) in line
    for headline in select_tiles(report):
        assert f"<span>{headline.heading}</span><strong>{headline.format(report)}</strong>" in page
        assert headline.caption in page


def test_a_figure_that_is_not_given_is_a_dash_and_plain_opis_replaces_debiased() -> None:
    report = make_tiny_report()
    figures = {headline.key: headline.format(report) for headline in HEADLINES}
    assert figures["opis_debiased"] == "–"
    assert next(iter(select_tiles(report))).key == "opis"
    without = report.model_copy(update={"identification": None})
    assert {h.key: h.format(without) for h in HEADLINES}["auroc"] == "–"
    assert "Identification" not in format_table(without)


def test_a_headline_with_an_interval_describes_it(report: Report) -> None:
    debiased = next(headline for headline in HEADLINES if headline.key == "opis_debiased")
    low, high = (format_small(end) for end in report.consistency.opis_ci)
    assert debiased.describe(report) == f"{debiased.caption}; 95 % interval {low} to {high}"
    assert debiased.describe(make_tiny_report()).endswith("no interval: too few items")


def test_worst_classes_are_those_of_least_utility(report: Report) -> None:
    worst = select_worst_classes(report, 3)
    utilities = sorted(row.utility for row in report.consistency.per_class if row.utility is not None)
    assert [row.utility for row in worst] == utilities[:3]
    mean = sum(utilities) / len(utilities)
    assert [row.below_mean for row in worst] == pytest.approx([mean - u for u in utilities[:3]])
    assert worst[0].format() == (
        worst[0].label,
        "8",
        format_percent(worst[0].far),
        format_percent(worst[0].frr),
        format_number(worst[0].utility),
    )
    assert select_worst_classes(make_tiny_report(), 3) == []


def test_a_search_is_judged_by_other_rates_than_a_pair() -> None:
    assert select_rates(Target(kind="fpir", value=0.01)) == ("fpir", "fnir")
    assert select_rates(Target(kind="eer")) == ("far", "frr")
    assert format_target(Target(kind="fpir", value=0.01)) == "FPIR 1 %"
    assert format_target(Target(kind="eer")) == "EER"


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
