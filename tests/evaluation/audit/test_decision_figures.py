"""A report about an operating point's decisions: FPIR as the gallery grows, and how sure answers are."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Target
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.decision_figures import add_decision_figures, measure_fpir_by_gallery
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.evaluate import evaluate_embeddings
from tests.evaluation.samples import make_clusters


def test_fpir_grows_with_the_gallery_as_counted_ones_do() -> None:
    everyone = make_clusters(0, classes=300, each=4, dim=16)
    some = everyone.select_classes(everyone.classes[:100])
    threshold = float(np.quantile(MeasuredThreshold.prepare(some, 0.5).trials.best_other, 0.88))
    measured = MeasuredThreshold.prepare(some, threshold)
    rows = {row.classes: row for row in measure_fpir_by_gallery(measured)}
    assert sorted(rows) == [10, 30, 100, 300, 1000]
    assert [row.items for _, row in sorted(rows.items())] == [40, 120, 400, 1200, 4000]
    rates = [row.fpir for _, row in sorted(rows.items())]
    assert rates == sorted(rates)
    assert all(row.fpir <= row.fpir_upper <= 1 for row in rows.values())
    for classes, items in ((100, some), (300, everyone)):
        counted = MeasuredThreshold.prepare(items, threshold).measure().fpir
        assert counted is not None
        assert rows[classes].fpir == pytest.approx(counted, rel=0.3)


def test_answers_are_judged_on_classes_that_nothing_was_fitted_on() -> None:
    fit, fresh = (make_clusters(seed, classes=60, each=6, prefix=f"{seed}-") for seed in (1, 2))
    point = calibrate_threshold(
        CalibrationSources(fit), Target(kind="fpir", value=0.1), status="estimated", model_hash="m"
    ).point
    figures = {}
    for name, items in (("own", fit), ("fresh", fresh)):
        report = evaluate_embeddings(items, model_hash="m", split="all")
        answer = add_decision_figures(report, items, point, CosineScorer()).answer
        assert answer is not None
        assert answer.operating_point == point.id
        assert answer.ece <= 0.08
        assert sum(answer.reliability.share) == pytest.approx(1)
        gaps = np.abs(np.subtract(answer.reliability.predicted, answer.reliability.observed))
        assert answer.ece == pytest.approx(float(gaps @ answer.reliability.share))
        figures[name] = answer
    assert figures["own"].classes == 29  # of a half, fitted on the other
    assert figures["fresh"].classes == 59


def test_a_point_of_pairs_has_neither() -> None:
    items = make_clusters(3, classes=30)
    sites = np.where(items.codes % 2, "north", "south")
    items = EmbeddingSet(items.vectors, items.labels, items.ids, {"site": sites})
    point = calibrate_threshold(
        CalibrationSources(items), Target(kind="far", value=0.05), model_hash="m"
    ).point
    report = evaluate_embeddings(items, model_hash="m", split="all")
    measured = add_decision_figures(report, items, point, CosineScorer(), groups=["site"])
    assert measured.answer is None
    assert measured.identification is not None
    assert measured.identification.fpir_by_gallery == []
    assert {group.value for group in measured.groups} == {"north", "south"}
