"""Charts: one description, three painters."""

from __future__ import annotations

import io

from PIL import Image

from api_schemas.report import AnswerFigures, AnswerReliability, Report
from evaluation.report.charts import CHARTS, Chart, build_charts, read_curves
from evaluation.report.png import draw_png
from evaluation.report.svg import draw_svg
from tests.evaluation.report.reports import Tags, make_point, make_tiny_report


def test_points_outside_the_range_are_not_drawn(report: Report) -> None:
    far_away = make_point().with_changes(threshold=-0.99)
    utility = build_charts(report, [far_away])[0].figure
    assert utility["layout"]["annotations"] == []


def test_points_of_another_score_are_not_drawn(report: Report) -> None:
    other = report.score.model_copy(update={"parameters": {"k": 1.0}})
    point = make_point().with_changes(score=other)
    assert [chart.figure for chart in build_charts(report, [point])] == [
        chart.figure for chart in build_charts(report, [])
    ]


def test_every_registered_chart_is_painted_by_all(report: Report) -> None:
    charts = build_charts(report, [make_point()])
    assert len(charts) == len(CHARTS) - 2, "all but those of a diagnosis and of answers"
    assert len({chart.id for chart in charts}) == len(charts)
    for chart in charts:
        curves = read_curves(chart.figure)
        assert len(curves) == 2
        drawing = draw_svg(chart)
        assert Tags(drawing).open == []
        assert drawing.count("<path") == len(curves)
        with Image.open(io.BytesIO(draw_png(chart))) as picture:
            assert picture.width > 800


def test_answers_are_shown_beside_what_was_promised(report: Report) -> None:
    diagram = AnswerReliability(predicted=[0.2, 0.95], observed=[0.25, 0.9], share=[0.5, 0.5])
    figures = AnswerFigures(
        operating_point="op", classes=40, unknown_share=0.25, ece=0.05, log_loss=0.3, reliability=diagram
    )
    chart = build_charts(report.model_copy(update={"answer": figures}), [])[-1]
    assert chart.figure is not None
    promised, observed = read_curves(chart.figure)
    assert (promised.x, promised.y) == ([0.0, 1.0], [0.0, 1.0])
    assert (observed.x, observed.y) == ([0.2, 0.95], [0.25, 0.9])
    assert "25 % of the queries unknown in a gallery of 40 classes" in chart.caption
    assert draw_svg(chart).count("<path") == 2


def test_a_filled_curve_has_the_one_before_it_as_its_base() -> None:
    upper, lower = [2.0, 3.0], [1.0, None]
    figure = {
        "data": [
            {"x": [0, 1], "y": upper, "name": "upper"},
            {"x": [0, 1], "y": lower, "name": "lower", "meta": {"role": "accent", "fill": True}},
            {"x": [0, 1], "y": upper, "name": "line", "meta": {"role": "warm"}},
        ]
    }
    band, line = read_curves(figure)
    assert (band.role, band.name, band.y, band.base) == ("accent", "lower", lower, upper)
    assert (line.role, line.y, line.base) == ("warm", upper, None)


def test_a_report_without_curves_says_why() -> None:
    utility, rates = build_charts(make_tiny_report(), [])
    assert utility.figure is None
    assert "at least two items" in utility.empty
    assert isinstance(rates, Chart)
