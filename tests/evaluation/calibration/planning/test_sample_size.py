"""The plan: more for rarer targets and uneven data, and enough when followed."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import GallerySize, Target
from common.errors import CalibrationRefused
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.fpir_thresholds import find_fpir_threshold, plan_gallery
from evaluation.calibration.impostor_scores import count_accepted_pairs
from evaluation.calibration.pair_thresholds import CalibrationSet, find_far_threshold
from evaluation.calibration.planning.sample_size import USEFUL, plan_data
from evaluation.calibration.sets.sources import LEAST_CLASSES
from evaluation.pairs.pairs import arrange


def make_sample(seed: int, classes: int, pull: float = 0.0, each: int = 6) -> EmbeddingSet:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, 16))
    centres[rng.random(classes) < 0.1, 0] += pull
    vectors = centres[:, None] + rng.standard_normal((classes, each, 16))
    return EmbeddingSet.from_arrays(vectors.reshape(-1, 16), np.repeat(np.arange(classes), each))


def test_rarer_targets_and_dense_regions_take_more_classes() -> None:
    pilot, dense = make_sample(0, 40), make_sample(0, 40, 5.0)
    needs = [plan_data(pilot, Target(kind="far", value=value)).classes for value in (0.05, 0.01, 0.001)]
    assert needs == sorted(needs)
    assert needs[0] < needs[2]
    far = Target(kind="far", value=0.01)
    assert plan_data(dense, far).classes > plan_data(pilot, far).classes
    fpir = [
        plan_data(pilot, Target(kind="fpir", value=0.05, gallery=GallerySize(items=6 * c, classes=c))).classes
        for c in (20, 200)
    ]
    assert fpir[0] < fpir[1]


TARGETS = [
    Target(kind="far", value=0.02),
    Target(kind="far", value=0.002),
    Target(kind="fpir", value=0.05, gallery=GallerySize(items=180, classes=30)),
]


def compute_target_fractions(target: Target, classes: int) -> list[float]:
    """The rate that calibration leaves on fresh samples over the target; 0 where it refuses."""
    fractions = []
    for seed in range(10):
        pairs = arrange(make_sample(100 + seed, classes), scorer=CosineScorer())
        data = CalibrationSet(pairs, target, seed, draws=500)
        try:
            if target.kind == "fpir":
                plan = plan_gallery(len(pairs.a), classes, target.gallery)
                rate = find_fpir_threshold(data, plan)[1].estimate
            else:
                accepted = count_accepted_pairs(pairs, find_far_threshold(data))
                rate = np.asarray(accepted).sum() / 2 / pairs.n_impostor
        except CalibrationRefused:
            rate = 0.0
        fractions.append(float(rate) / target.value)
    return fractions


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.kind}-{target.value}")
def test_the_planned_size_is_accepted_and_leaves_most_of_the_target(target: Target) -> None:
    needed = plan_data(make_sample(1, 30), target)
    assert str(needed.classes) in needed.sentence
    assert needed.items == 6 * needed.classes
    left = np.array(compute_target_fractions(target, needed.classes))
    assert np.mean(left > 0) >= 0.9
    assert np.mean(left >= USEFUL) >= 0.7


@pytest.mark.parametrize("target", TARGETS[1:], ids=lambda target: f"{target.kind}-{target.value}")
def test_a_third_of_the_planned_size_is_refused_or_leaves_little(target: Target) -> None:
    third = max(LEAST_CLASSES, plan_data(make_sample(1, 30), target).classes // 3)
    assert np.mean(np.array(compute_target_fractions(target, third)) >= USEFUL) <= 0.2


def test_below_the_least_size_most_samples_are_refused() -> None:
    needed = plan_data(make_sample(1, 30), TARGETS[1])
    assert LEAST_CLASSES < needed.least_classes <= needed.classes
    assert np.mean(np.array(compute_target_fractions(TARGETS[1], needed.least_classes - 8)) == 0) >= 0.5


def test_more_classes_than_anybody_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.calibration.planning.sample_size.MOST_CLASSES", 20)
    with pytest.raises(CalibrationRefused, match="More than 20 classes would be needed"):
        plan_data(make_sample(1, 30), TARGETS[1])


def test_a_pilot_of_four_classes_tells_nothing() -> None:
    with pytest.raises(CalibrationRefused, match="pilot of 4 classes"):
        plan_data(make_sample(0, 4), Target(kind="far", value=0.01))
    with pytest.raises(CalibrationRefused, match="FAR or an FPIR"):
        plan_data(make_sample(0, 40), Target(kind="eer"))
