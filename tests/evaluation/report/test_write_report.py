"""Reports that people look at."""

from __future__ import annotations

import html.parser
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import Evidence, OperatingPoint, Probability, Score, Target
from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from evaluation.diagnose import diagnose
from evaluation.evaluate import evaluate_embeddings
from evaluation.report.charts import build_charts
from evaluation.report.text_table import worst_classes
from evaluation.report.write_report import format_table, write_report


@pytest.fixture(scope="module")
def report() -> Report:
    draw = np.random.default_rng(0)
    labels = np.repeat([f"<class {k}>" for k in range(14)], 8)
    centres = np.repeat(draw.normal(size=(14, 10)), 8, axis=0)
    spread = np.repeat(draw.uniform(0.2, 1.3, 14), 8)[:, None]
    items = EmbeddingSet.from_arrays(centres + spread * draw.normal(size=centres.shape), labels)
    return evaluate_embeddings(items, model_hash="m" * 64, split="test")


@pytest.fixture
def point() -> OperatingPoint:
    evidence = Evidence(
        n_items=112, n_classes=14, n_genuine_pairs=392, n_impostor_pairs=5824, far=0.01, far_upper=0.02,
        frr=0.2, frr_upper=0.3, fpir=None, fpir_upper=None, fnir=None, method="m", classes_disjoint=True,
    )  # fmt: skip
    return OperatingPoint(
        id="p", name="far-1 & more", created_at=datetime.now(UTC), model_hash="m", data_hash="d",
        score=Score(), threshold=0.7, target=Target(kind="far", value=0.01), fit=evidence, proof=evidence,
        per_class=[], probability=None, consistency=None,
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    """Opened and closed tags, and every attribute that could leave the page."""

    VOID = frozenset({"meta", "line", "rect", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_names_classes_safely(
    report: Report, point: OperatingPoint, tmp_path: Path
) -> None:
    write_report(report, tmp_path / "out", [point])
    page = (tmp_path / "out" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links == []
    assert "script" not in tags.names
    assert not re.search(r"https?://", page)
    assert tags.names.count("svg") == 2
    worst = worst_classes(report, 10)
    assert len(worst) == 10
    for label, *_ in worst:
        assert label.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<class" not in page
    assert "far-1 &amp; more" in page
    assert f"{report.consistency.opis_debiased:.5f}" in page
    assert "prefers-color-scheme:dark" in page
    assert "nan" not in page.lower().replace("dominant", "")


def test_report_json_and_pictures_are_written(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    assert Report.load(tmp_path / "report.json") == report
    for name in ("utility", "rates"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 800
            assert len(picture.convert("L").getcolors() or []) > 10


def test_a_diagnosed_page_shows_groups_hardest_pairs_and_whether_the_probability_is_true(
    report: Report, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(14), 8)
    vectors = draw.normal(size=(14, 10))[labels] + 0.8 * draw.normal(size=(112, 10))
    items = EmbeddingSet.from_arrays(
        vectors, labels, [f"<i{k}>" for k in range(112)], {"camera": np.tile(["left", "right"], 56)}
    )
    probability = Probability(kind="platt", parameters={"slope": 9.0, "intercept": -4.0}, prior=0.5)
    found = diagnose(items, columns=["camera"], probability=probability, model_hash="m", split="t")
    write_report(report, tmp_path, diagnosis=found)
    page = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "camera = left" in page
    for pair in (*found.hardest_genuine[:10], *found.hardest_impostor[:10]):
        assert pair.a.replace("<", "&lt;").replace(">", "&gt;") in page
    assert found.reliability is not None
    gaps = np.abs(np.subtract(found.reliability.predicted, found.reliability.observed))
    assert found.reliability.ece == pytest.approx(np.dot(found.reliability.share, gaps))
    assert f"{found.reliability.ece:.4f}" in page
    with Image.open(tmp_path / "reliability.png") as picture:
        assert picture.width > 800
    assert Diagnosis.load(tmp_path / "diagnosis.json") == found


def test_worst_classes_are_those_of_least_utility(report: Report) -> None:
    worst = worst_classes(report, 3)
    utilities = sorted(row.utility for row in report.consistency.per_class if row.utility is not None)
    assert [row[4] for row in worst] == utilities[:3]


def test_the_table_gives_the_figures_and_the_reasons(report: Report) -> None:
    table = format_table(report)
    assert f"{report.consistency.opis:.5f}" in table
    assert "accepted at FAR 1 %" in table
    assert "<class" in table
    assert max(map(len, table.splitlines())) < 140


def test_points_outside_the_range_are_not_drawn(report: Report, point: OperatingPoint) -> None:
    far_away = point.model_copy(update={"threshold": -0.99})
    utility = build_charts(report, [far_away])[0].figure
    assert utility is not None
    assert utility["annotations" if "annotations" in utility else "layout"]["annotations"] == []


def test_a_report_without_curves_still_makes_a_page(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays([[1, 0], [1, 0.1], [0, 1]], ["a", "a", "b"])
    report = evaluate_embeddings(items, model_hash="m", split="all")
    write_report(report, tmp_path)
    assert "Utility needs classes" in (tmp_path / "report.html").read_text()
    assert "Note: OPIS compares classes" in format_table(report)
