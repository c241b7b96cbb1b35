"""Operating points on disk, with their cohorts; points of another model are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_schemas.operating_point import Score
from common.errors import InputError
from decision.class_arrays import ClassArrays, Plda
from decision.errors import OtherModel, check_model
from decision.operating_point_files import (
    SavedPoint,
    get_class_arrays_path,
    get_cohort_path,
    read_point,
    read_points_of_model,
)
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
    SavedPoint(made, COHORT).save(tmp_path / "new" / "folder" / "far.json")
    assert read_point(tmp_path / "new" / "folder" / "far.json").point == made
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


def test_a_point_has_its_class_model_beside_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = ClassArrays(Plda(rng.normal(size=8), rng.normal(size=(8, 3)), rng.uniform(1, 2, 3)))
    score = Score(
        kind="evidence",
        form="plda",
        parameters={"plda": 1.0, "intercept": 0.0, "usual_tightness": 0.5},
        class_model_sha256=arrays.compute_hash(),
    )
    made, file = point("fpir", 0.5).with_changes(score=score), tmp_path / "fpir.json"
    SavedPoint(made, None, arrays).save(file)
    read = read_point(file)
    assert read.scorer.score == score
    assert read.class_arrays is not None
    assert read.class_arrays.plda is not None
    np.testing.assert_array_equal(read.class_arrays.plda.projection, arrays.plda.projection)  # type: ignore[union-attr]
    labelled = ClassArrays(arrays.plda, np.array(["a", "bc"]))
    SavedPoint(made, None, labelled).save(file)
    with pytest.raises(InputError, match="is not the class model that"):
        read_point(file)
    with_labels = made.with_changes(
        score=score.model_copy(update={"class_model_sha256": labelled.compute_hash()})
    )
    SavedPoint(with_labels, None, labelled).save(file)
    again = read_point(file).class_arrays
    assert again is not None
    assert again.cohort_labels is not None
    assert again.cohort_labels.tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": np.zeros(1)}, "holds the array 'other'"),
        ({"mean": np.zeros(2)}, "needs mean, projection, between"),
        ({"mean": np.zeros(2), "projection": np.zeros((2, 3)), "between": np.zeros(4)}, "do not belong"),
        (b"PK\x03\x04 no archive", "cannot be read as a class model"),
        (None, "is missing"),
    ],
)
def test_a_damaged_class_model_is_one_sentence(tmp_path: Path, content: object, message: str) -> None:
    score = Score(
        kind="evidence",
        form="plda",
        parameters={"plda": 1.0, "intercept": 0.0, "usual_tightness": 0.5},
        class_model_sha256="0" * 64,
    )
    file = tmp_path / "fpir.json"
    SavedPoint(point("fpir", 0.5).with_changes(score=score), None).save(file)
    if isinstance(content, dict):
        np.savez(get_class_arrays_path(file), **content)
    elif isinstance(content, bytes):
        get_class_arrays_path(file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_point(file)
