"""The sentence about a report's OPIS beside the hold-out's interval."""

from __future__ import annotations

import pytest

from api_schemas.operating_point import Score
from api_schemas.report import Report
from service.web.report_story import compare_with_holdout
from tests.service.bundles import ServiceBundle


@pytest.mark.parametrize(
    ("opis", "says"),
    [(0.5, "lies above the hold-out's interval"), (-0.5, "lies below"), (None, "lies within")],
)
def test_a_report_that_leaves_the_interval_is_named(
    bundle: ServiceBundle, opis: float | None, says: str
) -> None:
    holdout = Report.load(bundle.path / "report.json")
    found = holdout.consistency
    value = found.opis_debiased if opis is None else opis
    consistency = found.model_copy(update={"opis_debiased": value})
    gallery = holdout.model_copy(update={"split": "gallery", "consistency": consistency})
    sentence = compare_with_holdout(gallery, holdout)
    assert sentence is not None
    assert sentence.startswith("The gallery's OPIS")
    assert says in sentence


def test_other_scores_are_not_compared(bundle: ServiceBundle) -> None:
    holdout = Report.load(bundle.path / "report.json")
    other = Score(kind="density", form="csls", cohort_sha256="0" * 64)
    assert compare_with_holdout(holdout.model_copy(update={"score": other}), holdout) is None
    assert compare_with_holdout(holdout, None) is None
