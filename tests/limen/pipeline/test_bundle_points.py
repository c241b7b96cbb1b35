"""The score kind of a bundle's operating points: none that was chosen becomes another one."""

from __future__ import annotations

import pytest

from api_schemas.build_config import CalibrationConfig
from api_schemas.operating_point import ScoreChoice
from common.errors import ConfigError
from evaluation.calibration.choose_score import FITTERS
from limen.pipeline.bundle_points import calibrate_points
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
