"""The score kind conjnorm: against plain loops, and that a point carries all it needs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from api_schemas.operating_point import Target
from common.errors import InputError
from decision.scorer_registry import open_scorer
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.choose_score import choose_score
from evaluation.calibration.scores.conj_norm_score import fit_conj_norm
from tests.evaluation.samples import calibrate


def _compute_density(x: list[float], items: list[list[float]], codes: list[int], p: float) -> float:
    q = p / (p - 1)

    def scale(v: list[float], to: float) -> list[float]:
        length = sum(abs(a) ** to for a in v) ** (1 / to)
        return [a / length for a in v]

    def half_square(v: list[float]) -> float:
        return sum(abs(a) ** q for a in v) ** (2 / q) / 2

    def diverge(x: list[float], m: list[float]) -> float:
        step = 1e-6
        slope = []
        for i in range(len(m)):  # the gradient by differences
            up, down = list(m), list(m)
            up[i], down[i] = m[i] + step, m[i] - step
            slope.append((half_square(up) - half_square(down)) / (2 * step))
        return half_square(x) - half_square(m) - sum((a - b) * g for a, b, g in zip(x, m, slope, strict=True))

    units = [scale(item, p) for item in items]
    total = 0.0
    for code in sorted(set(codes)):
        mine = [unit for unit, own in zip(units, codes, strict=True) if own == code]
        mean = scale([sum(column) for column in zip(*mine, strict=True)], p)
        share = sum(math.exp(-diverge(unit, mean) / 0.08) for unit in units) / len(units)
        total += math.exp(-diverge(scale(x, p), mean) / 0.08) / share
    return math.log(total)


@pytest.mark.parametrize("norm", [2.0, 2.5])
def test_the_density_is_that_of_a_plain_loop(fit: EmbeddingSet, cohort: EmbeddingSet, norm: float) -> None:
    few = cohort.subset(np.arange(0, len(cohort), 8))
    scorer = fit_conj_norm(fit, few, norm)
    rows = fit.vectors[:5]
    items = few.vectors.astype(float).tolist()
    expected = [_compute_density(row, items, few.codes.tolist(), norm) for row in rows.astype(float).tolist()]
    found = scorer.compute_densities(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[2:3], scorer.compute_densities(rows[2:3]))


def test_a_point_decides_the_same_from_its_file(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    done = calibrate(fit, Target(kind="far", value=0.03), proof=proof, training=cohort, score="conjnorm")
    assert done.cohort is not None
    assert done.point.score.kind == "conjnorm"
    point = type(done.point).model_validate_json(done.point.to_json())
    scorer = open_scorer(point.score, done.cohort.vectors)
    density = scorer.compute_densities(proof.vectors)
    i, j = np.triu_indices(len(proof), 1)
    similarities = compute_pair_similarities(proof.vectors[i], proof.vectors[j])
    scores = scorer(similarities, density[i], density[j])
    impostor = proof.labels[i] != proof.labels[j]
    assert point.proof is not None
    assert accepts(scores[impostor], point.threshold).mean() == pytest.approx(point.proof.far, abs=1e-12)
    parts = scorer.list_contributions(similarities[:9], density[i][:9], density[j][:9])
    np.testing.assert_allclose(sum(parts.values()), scores[:9], atol=1e-5)
    with pytest.raises(InputError, match="cohort of vectors has hash"):
        open_scorer(point.score, done.cohort.vectors[::-1])
    with pytest.raises(InputError, match="needs its cohort"):
        open_scorer(point.score, None)


def test_auto_names_what_it_did_not_take(
    fit: EmbeddingSet, proof: EmbeddingSet, cohort: EmbeddingSet
) -> None:
    chosen = choose_score(fit, "conjnorm", cohort, proof)
    assert chosen.reason.startswith("score: conjnorm (norm 2")
    few = cohort.select_classes(cohort.classes[:5])
    reason = choose_score(fit, "auto", few, proof).reason
    assert "has fewer than 10 prototypes" in reason
