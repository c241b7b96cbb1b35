"""The score kind density: what is fitted, when it is chosen, and that a point carries all it needs."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Target
from decision.scorers import CosineScorer, accepts, scorer_of
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import pair_similarities
from evaluation.calibration.calibrate import calibrate
from evaluation.calibration.density_score import choose_score, fit_csls, fit_logistic, split_for_density
from evaluation.calibration.fit_probability import fit_platt

FAR = Target(kind="far", value=0.03)


def crowded(seed: int, classes: int, prefix: str, each: int = 8, dim: int = 16) -> EmbeddingSet:
    """Half of the classes share a direction: strangers there are as alike as kin elsewhere."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    centres[::2, 0] += 4.0
    vectors = centres[:, None] + 0.8 * rng.standard_normal((classes, each, dim))
    labels = np.repeat([f"{prefix}{i}" for i in range(classes)], each)
    return EmbeddingSet.from_arrays(vectors.reshape(-1, dim), labels)


@pytest.fixture(scope="module")
def cohort() -> EmbeddingSet:
    return crowded(0, 100, "train")


@pytest.fixture(scope="module")
def fit() -> EmbeddingSet:
    return crowded(1, 50, "fit")


@pytest.fixture(scope="module")
def proof() -> EmbeddingSet:
    return crowded(2, 50, "proof")


def test_csls_takes_off_the_mean_similarity_to_the_nearest_of_the_cohort(
    fit: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    scorer = fit_csls(cohort)
    assert scorer.score.parameters["neighbours"] == [40]
    nearest = np.sort(fit.vectors.astype(float) @ cohort.vectors.T.astype(float), axis=1)[:, -40:].mean(
        axis=1
    )
    np.testing.assert_allclose(scorer.densities(fit.vectors), nearest, atol=1e-6)


def test_the_logistic_form_is_the_log_odds_that_scikit_learn_finds(
    fit: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    from sklearn.linear_model import LogisticRegression

    found = fit_logistic(fit, cohort).score.parameters
    density = -np.log(1.01 - fit_csls(cohort).densities(fit.vectors).astype(float))
    i, j = np.triu_indices(len(fit), 1)
    same = fit.labels[i] == fit.labels[j]
    similarity = pair_similarities(fit.vectors[i], fit.vectors[j]).astype(float)
    features = np.stack([-np.log(1.01 - similarity), -(density[i] + density[j]) / 2], 1)
    model = LogisticRegression(C=1e9, max_iter=1000).fit(
        features, same, sample_weight=np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum()) * 1e4
    )
    slope, weight = model.coef_[0]
    assert found["pole"] == 1.01
    assert found["slope"] == pytest.approx(slope, rel=0.02)
    assert found["weights"] == [pytest.approx(weight, rel=0.02)]
    assert found["intercept"] == pytest.approx(model.intercept_[0], rel=0.02)


def test_auto_takes_density_where_crowds_make_it_more_consistent(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    auto = calibrate(fit, FAR, proof=proof, cohort=cohort, score="auto", name="p", model_hash="m")
    plain = calibrate(fit, FAR, proof=proof, name="p", model_hash="m")
    assert auto.point.score.kind == "density"
    assert auto.cohort is cohort
    assert auto.point.consistency is not None
    assert plain.point.consistency is not None
    assert auto.point.consistency.opis_logfar_debiased is not None
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


def test_a_density_point_decides_the_same_from_its_file(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    done = calibrate(fit, FAR, proof=proof, cohort=cohort, score="density", name="p", model_hash="m")
    point = type(done.point).model_validate_json(done.point.to_json())
    assert done.cohort is not None
    scorer = scorer_of(point.score, done.cohort.vectors)
    density = scorer.densities(proof.vectors)
    i, j = np.triu_indices(len(proof), 1)
    scores = scorer(pair_similarities(proof.vectors[i], proof.vectors[j]), density[i], density[j])
    impostor = proof.labels[i] != proof.labels[j]
    assert point.proof is not None
    assert accepts(scores[impostor], point.threshold).mean() == pytest.approx(point.proof.far, abs=1e-12)


@pytest.mark.parametrize("target", [FAR, Target(kind="fpir", value=0.05)])
def test_density_points_meet_their_bounds(
    target: Target, fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    point = calibrate(
        fit, target, proof=proof, cohort=cohort, score="density", name="p", model_hash="m"
    ).point
    upper = point.fit.far_upper if target.kind == "far" else point.fit.fpir_upper
    assert upper is not None
    assert target.value is not None
    assert 0.5 * target.value < upper <= target.value


@pytest.mark.parametrize(
    ("cohort_of", "why"),
    [
        (lambda fit: None, "no training items"),
        (lambda fit: fit, "kin count as crowd"),
        (lambda fit: crowded(9, 10, "few"), "smaller than 200"),
    ],
)
def test_where_density_cannot_be_measured_it_is_cosine_and_says_so(
    cohort_of: object, why: str, fit: EmbeddingSet, proof: EmbeddingSet
) -> None:
    done = calibrate(
        fit,
        FAR,
        proof=proof,
        cohort=cohort_of(fit),
        score="density",
        name="p",
        model_hash="m",  # type: ignore[operator]
    )
    assert done.point.score.kind == "cosine"
    assert why in done.point.fit.method


def test_embeddings_alone_are_split_by_class() -> None:
    items = crowded(3, 90, "all")
    done = calibrate(items, FAR, score="density", name="p", model_hash="m")
    assert done.point.score.kind == "density"
    assert done.cohort is not None
    assert done.point.proof is not None
    assert (done.point.fit.n_classes, done.point.proof.n_classes) == (30, 30)
    proven = {rates.label for rates in done.point.per_class}
    assert not proven & set(done.cohort.classes)
    assert split_for_density(crowded(3, 50, "few"), 0) is None


def test_platt_agrees_with_scikit_learn_and_is_finite_when_separable() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    genuine = rng.normal(0.7, 0.15, 3000).astype(np.float32)
    impostor = rng.normal(0.2, 0.15, 5000).astype(np.float32)
    found = fit_platt(genuine, impostor).parameters
    model = LogisticRegression(C=1e9).fit(
        np.concatenate([genuine, impostor])[:, None],
        np.repeat([1, 0], [3000, 5000]),
        sample_weight=np.repeat([0.5 / 3000, 0.5 / 5000], [3000, 5000]) * 1e4,
    )
    assert found["slope"] == pytest.approx(model.coef_[0, 0], rel=0.02)
    assert found["intercept"] == pytest.approx(model.intercept_[0], rel=0.02)
    apart = fit_platt(np.full(50, 0.9, dtype=np.float32), np.full(50, 0.1, dtype=np.float32))
    assert np.isfinite(apart.parameters["slope"])
