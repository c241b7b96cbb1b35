"""Rates over a grid of thresholds, against each threshold measured alone and against the ladder."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import GallerySize
from api_schemas.tradeoff import Tradeoff
from decision.describe_point import get_shown_rates
from decision.scorers import CosineScorer
from decision.targets import Endpoint, get_endpoint
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.group_rates import measure_groups
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.calibration.ladder import Ladder, calibrate_ladder
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.tradeoff.measure_tradeoff import LEVELS, MeasuredSets, measure_tradeoff
from tests.service.bundles import make_clusters


@pytest.fixture(scope="module")
def items() -> EmbeddingSet:
    return make_clusters(2, 40, 8, "class-")


@pytest.fixture(scope="module")
def tradeoff(items: EmbeddingSet) -> Tradeoff:
    measured = measure_tradeoff(MeasuredSets.of_items(items, CosineScorer(), "nearest", None), "match")
    assert measured is not None
    return measured


@pytest.fixture(scope="module")
def ladder(items: EmbeddingSet) -> Ladder:
    sources = CalibrationSources(make_clusters(1, 50, 8, "fit-"), items)
    return calibrate_ladder(sources, score="cosine", aggregate="nearest", model_hash="0" * 64)


def test_every_rate_is_that_of_the_threshold_measured_alone(items: EmbeddingSet, tradeoff: Tradeoff) -> None:
    assert tradeoff.thresholds == sorted(set(tradeoff.thresholds))
    for at in range(0, len(tradeoff.thresholds), 20):
        alone = MeasuredThreshold.prepare(items, tradeoff.thresholds[at])
        rates = alone.measure()
        for name in ("far", "frr", "fpir", "fnir"):
            curve = getattr(tradeoff, name)
            assert curve[at] == pytest.approx(getattr(rates, name), rel=1e-6), name
        classes = alone.measure_classes()
        for row in tradeoff.classes_over:
            if row.rate in ("far", "frr"):
                over = sum((getattr(each, row.rate) or 0.0) > row.level for each in classes)
                assert (row.classes[at], row.n_classes) == (over, len(classes))


def test_the_grid_reaches_from_many_false_matches_to_many_misses(tradeoff: Tradeoff) -> None:
    assert tradeoff.fpir is not None
    assert tradeoff.fnir is not None
    assert (tradeoff.fpir[0], tradeoff.fpir[-1]) == (pytest.approx(0.5, abs=0.1), 0.0)
    assert (tradeoff.fnir[0], tradeoff.fnir[-1]) == (pytest.approx(0.0, abs=0.1), pytest.approx(1, abs=0.1))
    assert {row.level for row in tradeoff.classes_over} == set(LEVELS)


def test_bounds_lie_above_their_rates_and_fall_with_the_threshold(tradeoff: Tradeoff) -> None:
    for rate, upper in ((tradeoff.far, tradeoff.far_upper), (tradeoff.fpir, tradeoff.fpir_upper)):
        assert rate is not None
        assert upper is not None
        assert (np.array(upper) >= np.array(rate)).all()
        assert (np.diff(upper) <= 0).all()
        assert upper[-1] > 0, "what was not seen is not impossible"
        assert upper[0] < 1


def test_groups_are_those_of_the_threshold_measured_alone(items: EmbeddingSet, tradeoff: Tradeoff) -> None:
    assert {group.column for group in tradeoff.groups} == {"camera", "place"}, "few values, all well filled"
    for at in (40, 80):
        measured = MeasuredThreshold.prepare(items, tradeoff.thresholds[at])
        alone = {(row.column, row.value): row for row in measure_groups(measured, items, ["camera", "place"])}
        for group in tradeoff.groups:
            row = alone[group.column, group.value]
            assert (group.n_items, group.n_classes) == (row.n_items, row.n_classes)
            for name in ("far", "frr", "fpir", "fnir"):
                assert getattr(group, name)[at] == pytest.approx(getattr(row, name), rel=1e-6), name


def test_at_a_rung_the_curve_says_what_the_rung_says(ladder: Ladder) -> None:
    tradeoffs: dict[Endpoint, Tradeoff] = {tradeoff.endpoint: tradeoff for tradeoff in ladder.tradeoffs}
    assert set(tradeoffs) == {"match", "verify"}
    assert len(ladder.points) >= 4
    for point in (calibration.point for calibration in ladder.points):
        endpoint = get_endpoint(point.target)
        tradeoff = tradeoffs[endpoint]
        at = tradeoff.thresholds.index(point.threshold)
        assert point.proof is not None
        names = ("fpir", "fnir") if endpoint == "match" else ("far", "frr")
        for name in names:
            assert getattr(tradeoff, name)[at] == pytest.approx(getattr(point.proof, name), rel=1e-6), name
        bound, shown = getattr(tradeoff, f"{names[0]}_upper"), get_shown_rates(point).at_most
        assert bound is not None
        assert shown is not None
        assert bound[at] == pytest.approx(max(shown, getattr(tradeoff, names[0])[at]), rel=1e-6)


def test_a_larger_gallery_has_more_false_matches(items: EmbeddingSet, tradeoff: Tradeoff) -> None:
    wide = GallerySize(items=3200, classes=400)
    larger = measure_tradeoff(MeasuredSets.of_items(items, CosineScorer(), "nearest", wide), "match")
    assert larger is not None
    assert larger.gallery == wide
    assert larger.fpir is not None
    assert tradeoff.fpir is not None
    at = tradeoff.thresholds[70]
    other = int(np.argmin(np.abs(np.array(larger.thresholds) - at)))
    assert larger.fpir[other] > 2 * tradeoff.fpir[70]
    assert larger.fnir == tradeoff.fnir
