"""The score kind density: what is fitted, and that a point carries all it needs."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Target
from decision.scorer_registry import open_scorer
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.scores.density_score import fit_csls, fit_logistic
from tests.evaluation.samples import calibrate

FAR = Target(kind="far", value=0.03)


def test_csls_takes_off_the_mean_similarity_to_the_nearest_of_the_cohort(
    fit: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    scorer = fit_csls(cohort)
    assert scorer.score.parameters["neighbours"] == [40]
    nearest = np.sort(fit.vectors.astype(float) @ cohort.vectors.T.astype(float), axis=1)[:, -40:].mean(
        axis=1
    )
    np.testing.assert_allclose(scorer.compute_densities(fit.vectors), nearest, atol=1e-6)


def test_the_logistic_form_is_the_log_odds_that_scikit_learn_finds(
    fit: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    from sklearn.linear_model import LogisticRegression

    parameters = fit_logistic(fit, cohort).score.parameters
    density = -np.log(1.01 - fit_csls(cohort).compute_densities(fit.vectors).astype(float))
    i, j = np.triu_indices(len(fit), 1)
    same = fit.labels[i] == fit.labels[j]
    similarity = compute_pair_similarities(fit.vectors[i], fit.vectors[j]).astype(float)
    features = np.stack([-np.log(1.01 - similarity), -(density[i] + density[j]) / 2], 1)
    model = LogisticRegression(C=1e9, max_iter=1000).fit(
        features, same, sample_weight=np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum()) * 1e4
    )
    slope, weight = model.coef_[0]
    assert parameters["pole"] == 1.01
    assert parameters["slope"] == pytest.approx(slope, rel=0.02)
    assert parameters["weights"] == [pytest.approx(weight, rel=0.02)]
    assert parameters["intercept"] == pytest.approx(model.intercept_[0], rel=0.02)


def test_a_density_point_decides_the_same_from_its_file(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    done = calibrate(fit, FAR, proof=proof, training=cohort, score="density")
    point = type(done.point).model_validate_json(done.point.to_json())
    scorer = open_scorer(point.score, done.cohort.vectors)
    density = scorer.compute_densities(proof.vectors)
    i, j = np.triu_indices(len(proof), 1)
    scores = scorer(compute_pair_similarities(proof.vectors[i], proof.vectors[j]), density[i], density[j])
    impostor = proof.labels[i] != proof.labels[j]
    assert accepts(scores[impostor], point.threshold).mean() == pytest.approx(point.proof.far, abs=1e-12)


@pytest.mark.parametrize("target", [FAR, Target(kind="fpir", value=0.05)])
def test_density_points_meet_their_bounds(
    target: Target, fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    point = calibrate(fit, target, proof=proof, training=cohort, score="density").point
    upper = point.fit.far_upper if target.kind == "far" else point.fit.fpir_upper
    assert 0.5 * target.value < upper <= target.value
