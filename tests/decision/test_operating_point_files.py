"""Operating points on disk, with their cohorts; points of another model are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_schemas.operating_point import Score
from common.errors import InputError
from decision.errors import OtherModel, check_model
from decision.operating_point_files import SavedPoint, get_cohort_path, read_point, read_points_of_model
from embeddings.hashes import hash_cohort
from tests.index.conftest import MODEL, make_items, make_unit_rows, point

COHORT = make_items(make_unit_rows(np.random.default_rng(0), 20))
DENSITY = Score(
    kind="density",
    form="csls",
    parameters={"neighbours": [3], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
    cohort_sha256=hash_cohort(COHORT.vectors),
)


def test_a_point_has_its_cohort_beside_it(tmp_path: Path) -> None:
    made = point("far", 0.5).with_changes(score=DENSITY)
    SavedPoint(made, COHORT).save(tmp_path / "far.json")
    read = read_point(tmp_path / "far.json")
    assert read.point == made
    assert read.cohort is not None
    np.testing.assert_array_equal(read.cohort.vectors, COHORT.vectors)
    assert read.scorer.score == DENSITY
    SavedPoint(made, COHORT.subset(range(10))).save(tmp_path / "far.json")
    with pytest.raises(InputError, match="is not the cohort that"):
        read_point(tmp_path / "far.json")
    get_cohort_path(tmp_path / "far.json").unlink()
    with pytest.raises(InputError, match=r"far\.cohort\.npz"):
        read_point(tmp_path / "far.json")


def test_a_point_of_another_model_is_refused(tmp_path: Path) -> None:
    SavedPoint(point("far", 0.5), None).save(tmp_path / "far.json")
    assert read_points_of_model([tmp_path / "far.json"], MODEL)[0].cohort is None
    with pytest.raises(
        OtherModel, match=r"far\.json: the operating point 'far 1 %' belongs to model aaaa.* bbbb"
    ):
        read_points_of_model([tmp_path / "far.json"], "b" * 64)
    with pytest.raises(OtherModel, match=r"^The operating point 'far 1 %' belongs to model"):
        check_model(point("far", 0.5), "b" * 64)
