"""Which kind of score is taken, and why."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from api_schemas.operating_point import ScoreChoice, ScoreKind, Target
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.choose_score import FITTERS, choose_score, split_classes_in_three
from tests.evaluation.samples import calibrate, make_dense_half

FAR = Target(kind="far", value=0.03)


def test_auto_takes_density_where_dense_regions_make_it_more_consistent(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    auto = calibrate(fit, FAR, proof=proof, training=cohort, score="auto")
    plain = calibrate(fit, FAR, proof=proof)
    assert auto.point.score.kind == "density"
    assert auto.cohort is cohort
    assert plain.point.consistency.opis_logfar_debiased is not None
    assert auto.point.consistency.opis_logfar_debiased < 0.7 * plain.point.consistency.opis_logfar_debiased
    assert plain.cohort is None


def test_auto_keeps_cosine_where_space_is_evenly_filled() -> None:
    def even(seed: int, prefix: str) -> EmbeddingSet:
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((40, 1, 16)) + 0.8 * rng.standard_normal((40, 8, 16))
        return EmbeddingSet.from_arrays(
            vectors.reshape(-1, 16), np.repeat([f"{prefix}{i}" for i in range(40)], 8)
        )

    chosen = choose_score(even(0, "a"), "auto", even(1, "b"), even(2, "c"))
    assert isinstance(chosen.scorer, CosineScorer)
    assert chosen.cohort is None


@pytest.mark.parametrize(
    ("cohort_of", "why"),
    [
        (lambda fit: None, "no training items"),
        (lambda fit: fit, "shares classes with the evaluated data"),
        (lambda fit: make_dense_half(9, 10, "few"), "smaller than 200"),
    ],
)
def test_where_density_cannot_be_measured_it_is_cosine_and_says_so(
    cohort_of: object, why: str, fit: EmbeddingSet, proof: EmbeddingSet
) -> None:
    done = calibrate(fit, FAR, proof=proof, training=cohort_of(fit), score="density")
    assert done.point.score.kind == "cosine"
    assert why in done.point.fit.method


def test_embeddings_alone_are_split_by_class() -> None:
    items = make_dense_half(3, 90, "all")
    done = calibrate(items, FAR, score="density")
    assert done.point.score.kind == "density"
    assert (done.point.fit.n_classes, done.point.proof.n_classes) == (30, 30)
    proven = {rates.label for rates in done.point.per_class}
    assert not proven & set(done.cohort.classes)
    assert split_classes_in_three(make_dense_half(3, 50, "few"), 0) is None


def test_every_kind_of_score_can_be_chosen() -> None:
    assert {"cosine", *FITTERS} == set(get_args(ScoreChoice)) - {"auto"}
    assert set(get_args(ScoreKind)) == {"cosine", *FITTERS, "evidence"}, "that of a search by whole classes"
