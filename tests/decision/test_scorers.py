"""Score kinds and the accept rule: the density of an item does not depend on its batch."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from api_schemas.operating_point import Score, ScoreKind
from common.errors import InputError
from decision.scorer_registry import SCORERS, needs_cohort, open_scorer
from decision.scorers import (
    CosineScorer,
    DensityScorer,
    accepts,
    compute_neighbour_means,
    count_accepted,
    count_reached,
    count_rejected,
)
from embeddings.embedding_set import normalise_rows
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities

RNG = np.random.default_rng(0)
COHORT = normalise_rows(np.concatenate([RNG.normal(size=(90, 24)), np.ones((10, 24))]))  # ten duplicates
ITEMS = normalise_rows(np.concatenate([RNG.normal(size=(40, 24)), np.ones((3, 24))]))


def density(form: str = "csls", **changes: object) -> Score:
    parameters = {"neighbours": [5, 20], "weights": [0.25, 0.75], "slope": 2.0, "intercept": -1.0, **changes}
    return Score(kind="density", form=form, parameters=parameters, cohort_sha256=hash_cohort(COHORT))  # type: ignore[arg-type]


def test_neighbour_means_agree_with_a_loop() -> None:
    means = compute_neighbour_means(ITEMS, COHORT, [1, 5, 20])
    for item, of_item in zip(ITEMS, means, strict=True):
        nearest = sorted(
            (float(compute_pair_similarities(item[None], c[None])[0]) for c in COHORT), reverse=True
        )
        np.testing.assert_allclose(of_item, [np.mean(nearest[:k]) for k in (1, 5, 20)], rtol=1e-12)


@pytest.mark.parametrize("more", [{}, {"pole": 1.01}])
def test_a_density_is_the_same_bits_alone_and_in_any_batch(more: dict[str, float]) -> None:
    scorer = open_scorer(density("logistic", **more), COHORT)
    together = scorer.compute_densities(ITEMS)
    assert together.dtype == np.float32
    alone = np.concatenate([scorer.compute_densities(ITEMS[i : i + 1]) for i in range(len(ITEMS))])
    shuffled = RNG.permutation(len(ITEMS))
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[shuffled], scorer.compute_densities(ITEMS[shuffled]))


def test_the_score_is_symmetric_and_broadcasts() -> None:
    scorer = open_scorer(density(), COHORT)
    densities = scorer.compute_densities(ITEMS)
    table = scorer((ITEMS @ ITEMS.T).clip(-1, 1), densities[:, None], densities[None, :])
    np.testing.assert_allclose(table, table.T, atol=1e-5)
    single = scorer(compute_pair_similarities(ITEMS[:1], ITEMS[1:2]), densities[:1], densities[1:2])
    expected = 2.0 * float(ITEMS[0] @ ITEMS[1]) - (densities[0] + densities[1]) / 2 - 1.0
    assert float(single[0]) == pytest.approx(expected, abs=1e-5)
    assert single.dtype == np.float32


def test_with_a_pole_density_weighs_less_the_more_alike_two_items_are() -> None:
    scorer = open_scorer(density("logistic", pole=1.01), COHORT)
    densities = scorer.compute_densities(ITEMS)
    means = compute_neighbour_means(ITEMS, COHORT, [5, 20])
    for item, (near, wide) in zip(densities, means, strict=True):
        assert item == pytest.approx(-0.25 * np.log(1.01 - near) - 0.75 * np.log(1.01 - wide), abs=1e-6)
    similarity = np.array([-1.0, 0.3, 0.9, 1.0])
    scores = scorer(similarity, densities[:1], densities[1:2])
    expected = [-2.0 * np.log(1.01 - s) - (densities[0] + densities[1]) / 2 - 1.0 for s in similarity]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    # what a step in density takes off is worth a smaller step in similarity near 1 than far from it
    steps = np.diff(scorer(np.array([0.3, 0.31, 0.9, 0.91]), densities[:1], densities[1:2]))
    assert steps[2] > 5 * steps[0] > 0


def test_cosine_looks_at_nothing_else() -> None:
    scorer = open_scorer(Score())
    assert isinstance(scorer, CosineScorer)
    np.testing.assert_array_equal(scorer(np.array([0.25, 0.5])), np.array([0.25, 0.5], dtype=np.float32))
    np.testing.assert_array_equal(scorer.compute_densities(ITEMS), 0)


def test_a_wrong_or_missing_cohort_is_refused() -> None:
    with pytest.raises(InputError, match="needs its cohort"):
        open_scorer(density())
    with pytest.raises(InputError, match="was fitted with"):
        open_scorer(density(), COHORT[::-1])
    with pytest.raises(InputError, match="needs the parameters weights"):
        open_scorer(
            Score(
                kind="density",
                form="csls",
                parameters={"neighbours": [5], "slope": 1.0, "intercept": 0.0},
                cohort_sha256=hash_cohort(COHORT),
            ),
            COHORT,
        )
    with pytest.raises(InputError, match="fewer than the neighbours"):
        open_scorer(density(neighbours=[101], weights=[1.0]), COHORT)
    with pytest.raises(InputError, match="pole of a density score must be above 1"):
        open_scorer(density("logistic", pole=1.0), COHORT)
    with pytest.raises(TypeError, match="both ends"):
        DensityScorer(density(), COHORT)(np.zeros(2))


def test_every_score_kind_is_registered() -> None:
    assert set(SCORERS) == set(get_args(ScoreKind))
    evidence = Score(
        kind="evidence",
        form="similarity",
        parameters={"best": 1.0, "mean": 1.0, "tightness": -1.0, "intercept": 0.0, "usual_tightness": 0.5},
    )
    prototypes = Score(
        kind="conjnorm",
        form="norm 2",
        parameters={
            "classes": [i % 10 for i in range(len(COHORT))],
            "norm": 2.0,
            "temperature": 0.1,
            "weight": 1.0,
            "slope": 2.0,
            "intercept": -1.0,
        },
        cohort_sha256=hash_cohort(COHORT),
    )
    of_cohort = [open_scorer(score, COHORT) for score in (density(), prototypes)]
    opened = [open_scorer(Score()), *of_cohort, open_scorer(evidence)]
    assert {scorer.score.kind: type(scorer) for scorer in opened} == SCORERS
    assert (needs_cohort(Score()), opened[0].density_key) == (False, None)
    assert needs_cohort(density())
    assert needs_cohort(prototypes)
    csls, again, logistic = (open_scorer(density(form), COHORT) for form in ("csls", "csls", "logistic"))
    assert csls.density_key == again.density_key != logistic.density_key


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7123456, 1.0])
def test_accepted_at_the_threshold_and_not_one_step_below(threshold: float) -> None:
    limit = np.float32(threshold)
    below, above = np.nextafter(limit, np.float32(-2)), np.nextafter(limit, np.float32(2))
    assert accepts([below, limit, above], float(limit)).tolist() == [False, True, True]


def test_a_threshold_is_compared_as_float32() -> None:
    limit = 0.1  # not a float32: 0.1f is slightly above it
    assert accepts(np.float32(0.1), limit)
    assert accepts(np.float64(0.1), limit)
    assert not accepts(np.nextafter(np.float32(0.1), np.float32(0)), limit)


def test_counts_are_those_of_the_accept_rule() -> None:
    scores = np.float32([0.1, 0.1, 0.3, 0.3, 0.7])
    thresholds = [0.05, 0.1, np.nextafter(np.float32(0.1), np.float32(1)), 0.3, 0.7, 0.8]
    table = np.array([accepts(scores, threshold) for threshold in thresholds])
    assert count_accepted(scores, thresholds).tolist() == table.sum(axis=1).tolist()
    assert count_rejected(scores, thresholds).tolist() == (~table).sum(axis=1).tolist()
    assert count_reached(scores, thresholds).tolist() == table.sum(axis=0).tolist()
