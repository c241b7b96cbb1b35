"""The plan: more for rarer targets and crowded data, and enough when followed."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.errors import CalibrationRefused
from api_schemas.operating_point import GallerySize, Target
from decision.embeddings import EmbeddingSet
from evaluation.calibrate import calibrate
from evaluation.plan import plan


def sample(seed: int, classes: int, crowd: float = 0.0, each: int = 6) -> EmbeddingSet:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, 16))
    centres[rng.random(classes) < 0.1, 0] += crowd
    vectors = centres[:, None] + rng.standard_normal((classes, each, 16))
    return EmbeddingSet.from_arrays(vectors.reshape(-1, 16), np.repeat(np.arange(classes), each))


def test_rarer_targets_and_crowds_take_more_classes() -> None:
    pilot, crowded = sample(0, 40), sample(0, 40, 5.0)
    needs = [plan(pilot, Target(kind="far", value=value)).classes for value in (0.05, 0.01, 0.001)]
    assert needs == sorted(needs)
    assert needs[0] < needs[2]
    far = Target(kind="far", value=0.01)
    assert plan(crowded, far).classes > plan(pilot, far).classes
    fpir = [
        plan(pilot, Target(kind="fpir", value=0.05, gallery=GallerySize(items=6 * c, classes=c))).classes
        for c in (20, 200)
    ]
    assert fpir[0] < fpir[1]


@pytest.mark.parametrize("value", [0.02, 0.002])
def test_a_followed_plan_calibrates_and_leaves_most_of_the_target(value: float) -> None:
    target = Target(kind="far", value=value)
    needed = plan(sample(1, 30), target)
    assert str(needed.classes) in needed.sentence
    assert needed.items == 6 * needed.classes
    point = calibrate(sample(2, needed.classes), target, name="p", model_hash="m").point
    assert point.fit.far is not None
    assert point.fit.far > 0.5 * value


def test_a_pilot_of_four_classes_tells_nothing() -> None:
    with pytest.raises(CalibrationRefused, match="pilot of 4 classes"):
        plan(sample(0, 4), Target(kind="far", value=0.01))
    with pytest.raises(CalibrationRefused, match="FAR or an FPIR"):
        plan(sample(0, 40), Target(kind="eer"))
