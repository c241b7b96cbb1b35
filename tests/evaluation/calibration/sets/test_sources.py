"""Sets to calibrate on: what is refused, sampled, pooled, and said about it."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import GallerySize
from common.errors import CalibrationRefused, InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.sets import sources as sources_module
from evaluation.calibration.sets.sources import CalibrationSources, prepare_sources, sample_items
from tests.evaluation.samples import make_clusters


@pytest.mark.parametrize(
    ("sets", "error", "sentence"),
    [
        ({"proof": make_clusters(0, 25)}, InputError, "both in the fit and in the proof"),
        ({"cohort": make_clusters(0, 30)}, InputError, "both in the gallery and in the cohort"),
        ({"unknown": make_clusters(0, 30)}, InputError, "both in the gallery and in the unknown queries"),
        ({"cohort": make_clusters(1, 30, dim=5, prefix="x")}, InputError, "5 numbers, .* 12"),
        ({"cohort": make_clusters(1, 4, prefix="x")}, CalibrationRefused, "cohort of 4 is too small"),
        (
            {"unknown": make_clusters(1, 3, 3, prefix="x")},
            CalibrationRefused,
            "9 unknown queries are too few",
        ),
    ],
)
def test_sets_that_do_not_fit_are_named(sets: dict, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        prepare_sources(CalibrationSources(make_clusters(0, 25), **sets))


def test_few_classes_need_a_cohort_or_unknown_queries() -> None:
    three = make_clusters(0, 3)
    with pytest.raises(
        CalibrationRefused, match=r"3 classes are too few .* cohort of other people's vectors"
    ):
        prepare_sources(CalibrationSources(three))
    prepared = prepare_sources(CalibrationSources(three, cohort=make_clusters(1, 30, prefix="x")))
    assert prepared.gallery == GallerySize(items=18, classes=3)
    assert "assumes that people who are not in the gallery are like the 30 of the cohort" in prepared.notes[0]
    with_unknown = prepare_sources(CalibrationSources(three, unknown=make_clusters(1, 30, prefix="x")))
    assert with_unknown.cohort is not None


def test_a_cohort_under_one_label_is_of_as_many_people_as_vectors() -> None:
    crowd = make_clusters(1, 30, prefix="x")
    nameless = EmbeddingSet.from_arrays(crowd.vectors, ["other"] * len(crowd), [f"o{k}" for k in range(180)])
    prepared = prepare_sources(CalibrationSources(make_clusters(0, 3), cohort=nameless))
    assert len(prepared.cohort.classes) == 180


def test_halves_of_unknown_queries_share_no_class() -> None:
    unknown = make_clusters(1, 30, prefix="x")
    prepared = prepare_sources(CalibrationSources(make_clusters(0, 25), unknown=unknown))
    first, second = prepared.unknown, prepared.unknown_proof
    assert len(first) + len(second) == len(unknown)
    assert not np.isin(first.classes, second.classes).any()


def test_few_classes_to_fit_on_are_pooled_with_those_of_the_proof() -> None:
    prepared = prepare_sources(CalibrationSources(make_clusters(0, 12), make_clusters(1, 8, prefix="t")))
    assert len(prepared.fit.classes) == 20
    assert prepared.proof is None
    kept = prepare_sources(CalibrationSources(make_clusters(0, 25), make_clusters(1, 8, prefix="t")))
    assert len(kept.proof.classes) == 8


def test_large_sets_are_sampled_by_class_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_clusters(0, 40, 10)
    assert sample_items(items, 0) is items
    monkeypatch.setattr(sources_module, "MOST_ITEMS", 150)
    monkeypatch.setattr(sources_module, "MOST_OF_CLASS", 5)
    prepared = prepare_sources(CalibrationSources(items))
    assert np.unique(prepared.fit.codes, return_counts=True)[1].tolist() == [5] * 30
    assert prepared.gallery == GallerySize(items=400, classes=40), "the gallery is that of all items"
    assert "fit: 150 of 400 items, of 30 of 40 classes drawn at random" in prepared.notes[0]
    again = prepare_sources(CalibrationSources(items))
    np.testing.assert_array_equal(again.fit.ids, prepared.fit.ids)
