"""The score kind of a bundle's operating points: none that was chosen becomes another one."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.build_config import CalibrationConfig
from api_schemas.operating_point import ScoreChoice
from common.errors import ConfigError
from decision.describe_point import count_of_thousand
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.choose_score import FITTERS
from limen.pipeline.bundle_points import calibrate_points, describe_points, describe_strangers
from limen.pipeline.evaluation_source import EvaluationSource
from tests.limen.conftest import make_classes

ITEMS = make_classes(20, 4)


@pytest.mark.parametrize("score", ["density"])
def test_a_chosen_score_that_needs_a_cohort_is_refused_without_one(
    score: ScoreChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FITTERS, score, FITTERS["density"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{score} needs training classes outside the gallery"):
        calibrate_points(EvaluationSource(ITEMS, "0" * 64, "all"), ITEMS, CalibrationConfig(score=score))


def test_what_is_assumed_and_who_the_strangers_are_is_said() -> None:
    gallery, others = make_classes(12, 4), make_classes(40, 4, seed=9)
    cohort = EmbeddingSet(others.vectors, np.char.add("x", others.labels), others.ids)
    settings = CalibrationConfig(targets={"fpir": 0.1}, aggregate="nearest", score="cosine")
    source = EvaluationSource(gallery, "0" * 64, "all")
    said = describe_points(calibrate_points(source, None, settings, cohort=cohort))
    assert "\nAssumes that people who are not in the gallery are like the 40 of the cohort" in said
    points = calibrate_points(source, None, settings, unknown=cohort)
    said = describe_points(points)
    assert "\nFitted on 80 real unknown queries, proven on 80 others.\n" in said
    active = next(point for point in points.points if point.id == points.active["match"])
    (line,) = describe_strangers(active)
    assert line in said
    assert f"about {count_of_thousand(active.proof.fpir)} of 1,000" in line
