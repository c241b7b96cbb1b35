"""Scores of queries with classes: right by a plain loop, and the same bits in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from api_schemas.operating_point import Score
from common.errors import InputError
from decision.class_arrays import ClassArrays, Plda
from decision.class_evidence import FORMS, ClassModels, EvidenceScorer, from_fixed, to_fixed
from decision.scorer_registry import needs_class_arrays, open_scorer
from embeddings.embedding_set import normalise_rows
from embeddings.hashes import hash_cohort

RNG = np.random.default_rng(0)
D, K = 12, 7
COHORT = normalise_rows(RNG.normal(size=(60, D)))
LABELS = np.array(["a", "b", "c", "d", "e", "f"]).repeat(10)
CLASSES = [normalise_rows(RNG.normal(size=(n, D)) + 2) for n in (1, 4, 4, 9)]
NAMES = ["a", "x", "f", "y"]
QUERIES = normalise_rows(RNG.normal(size=(5, D)) + 1)
PLDA = Plda(RNG.normal(size=D), RNG.normal(size=(D, K)), RNG.uniform(0.1, 4, K))
ARRAYS = ClassArrays(PLDA, LABELS)
WEIGHTS = {
    "best": 2.0,
    "mean": 3.0,
    "tightness": -1.5,
    "query_density": -0.7,
    "class_density": -0.4,
    "plda": 0.25,
}


def build(form: str = "all", **changes: Any) -> EvidenceScorer:
    parameters = {**WEIGHTS, "intercept": -0.5, "usual_tightness": 0.6, "neighbours": 5.0, **changes}
    arrays = ClassArrays(
        PLDA if "plda" in FORMS[form] else None, LABELS if "query_density" in FORMS[form] else None
    )
    has_arrays = arrays.plda is not None or arrays.cohort_labels is not None
    score = Score(
        kind="evidence",
        form=form,
        parameters={name: value for name, value in parameters.items() if value is not None},
        cohort_sha256=hash_cohort(COHORT),
        class_model_sha256=arrays.compute_hash() if has_arrays else None,
    )
    scorer = open_scorer(score, COHORT, arrays)
    assert isinstance(scorer, EvidenceScorer)
    assert needs_class_arrays(score) == has_arrays
    return scorer


def build_models(scorer: EvidenceScorer) -> ClassModels:
    densities = [
        scorer.compute_densities(rows, np.full(len(rows), name)).astype(np.float64).mean()
        for rows, name in zip(CLASSES, NAMES, strict=True)
    ]
    sums = np.stack([from_fixed(to_fixed(rows).sum(axis=0)) for rows in CLASSES])
    return ClassModels(sums, np.array([len(rows) for rows in CLASSES]), np.array(densities))


def score_all(scorer: EvidenceScorer) -> np.ndarray:
    query, klass = (part.ravel() for part in np.mgrid[: len(QUERIES), : len(CLASSES)])
    best = np.array([(CLASSES[c] @ QUERIES[q]).max() for q, c in zip(query, klass, strict=True)])
    densities = scorer.compute_trial_densities(QUERIES, query, np.array(NAMES)[klass])
    prepared = scorer.prepare(build_models(scorer))
    return scorer.score_trials(QUERIES, query, best, prepared, klass, densities).reshape(5, 4)


def score_plainly(q: int, c: int, pole: float | None) -> float:
    """One trial from its definitions, in a loop."""
    query, rows = QUERIES[q].astype(float), CLASSES[c].astype(float)
    n = len(rows)
    pairs = [rows[i] @ rows[j] for i in range(n) for j in range(n) if i != j]
    tightness = (n * np.mean(pairs) + 3 * 0.6) / (n + 3) if n > 1 else 0.6
    others = COHORT[NAMES[c] != LABELS].astype(float)

    def density(x: np.ndarray) -> float:
        return float(np.sort(others @ x)[-5:].mean())

    features = {
        "best": max(rows @ query),
        "mean": np.mean(rows @ query),
        "tightness": tightness,
        "query_density": density(query),
        "class_density": np.mean([density(x) for x in rows]),
    }
    if pole is not None:
        features = {name: -np.log(pole - value) for name, value in features.items()}
    x, m = (query - PLDA.mean) @ PLDA.projection, (rows.mean(axis=0) - PLDA.mean) @ PLDA.projection
    b = PLDA.between
    g = b / (b + 1 / n)
    features["plda"] = float(
        (stats.norm.logpdf(x, g * m, np.sqrt(1 + b - g * b)) - stats.norm.logpdf(x, 0, np.sqrt(1 + b))).sum()
    )
    return -0.5 + float(sum(WEIGHTS[name] * value for name, value in features.items()))


@pytest.mark.parametrize("pole", [None, 1.02])
def test_scores_agree_with_the_definitions(pole: float | None) -> None:
    scores = score_all(build(pole=pole))
    expected = [[score_plainly(q, c, pole) for c in range(4)] for q in range(5)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_trial_has_the_same_bits_in_any_company(form: str) -> None:
    scorer = build(form)
    scores, models = score_all(scorer), build_models(scorer)
    for q in range(5):
        for c in range(4):
            best = np.array([(CLASSES[c] @ QUERIES[q]).max()])
            densities = scorer.compute_trial_densities(QUERIES[q : q + 1], np.zeros(1, int), [NAMES[c]])
            one = slice(c, c + 1)
            densities_of_class = None if models.densities is None else models.densities[one]
            alone = scorer.prepare(ClassModels(models.sums[one], models.counts[one], densities_of_class))
            zero = np.zeros(1, dtype=np.int64)
            assert scorer.score_trials(QUERIES[q : q + 1], zero, best, alone, zero, densities) == scores[q, c]
    assert len(np.unique(scores)) == scores.size


def test_a_query_of_several_vectors_is_more_certain() -> None:
    """The mean of v vectors has a v-th of the noise."""
    scorer = build("plda", plda=1.0, intercept=0.0)
    prepared = scorer.prepare(build_models(scorer))
    x = (QUERIES[0].astype(float) - PLDA.mean) @ PLDA.projection
    b, g = PLDA.between, PLDA.between / (PLDA.between + 1 / 4)
    inside = stats.norm.logpdf(x, g * prepared.projected[1], np.sqrt(1 / 3 + b - g * b))
    outside = stats.norm.logpdf(x, 0, np.sqrt(1 / 3 + b))
    zero = np.zeros(1, dtype=np.int64)
    score = scorer.score_trials(QUERIES[:1], zero, np.zeros(1), prepared, zero + 1, vectors=3)
    assert score[0] == pytest.approx((inside - outside).sum(), rel=1e-5)


def test_class_sums_do_not_depend_on_the_order_of_writes() -> None:
    rows = normalise_rows(RNG.normal(size=(300, D)))
    total = to_fixed(rows).sum(axis=0)
    for row in rows[RNG.permutation(300)][:200]:
        total = total - to_fixed(row)
    for row in RNG.permutation(to_fixed(rows)):
        total = total + row
    total = total - to_fixed(rows).sum(axis=0)
    for row in rows[::-1]:
        total = total + to_fixed(row)
    left = total - to_fixed(rows).sum(axis=0)
    np.testing.assert_allclose(
        from_fixed(total), from_fixed(left) + rows.astype(float).sum(axis=0), atol=1e-9
    )
    np.testing.assert_array_equal(to_fixed(rows).sum(axis=0), to_fixed(rows[::-1]).sum(axis=0))


def test_items_are_proposed_by_similarity() -> None:
    scorer = build()
    similarities = np.array([0.25, 0.5], dtype=np.float32)
    np.testing.assert_array_equal(scorer(similarities), similarities)
    assert scorer.is_similarity
    assert build("similarity").density_key is None
    assert build("plda").compute_densities(QUERIES).tolist() == [0.0] * 5
    assert scorer.density_key == build("all", best=1.0).density_key is not None
    assert scorer.density_key != build("all", neighbours=6.0).density_key


def test_what_does_not_belong_together_is_refused() -> None:
    score = build().score
    with pytest.raises(InputError, match="form 'nearly' is not known; there are similarity"):
        open_scorer(score.model_copy(update={"form": "nearly"}), COHORT, ARRAYS)
    with pytest.raises(InputError, match="lacks intercept, mean"):
        build("similarity", mean=None, intercept=None)
    with pytest.raises(InputError, match="pole of an evidence score must be above 1"):
        build(pole=1.0)
    with pytest.raises(InputError, match="needs the arrays of its classes"):
        open_scorer(score, COHORT)
    with pytest.raises(InputError, match="needs its cohort"):
        open_scorer(score, None, ARRAYS)
    with pytest.raises(InputError, match="class model has hash"):
        open_scorer(score, COHORT, ClassArrays(PLDA, LABELS[::-1]))
    with pytest.raises(InputError, match="was fitted with"):
        open_scorer(score, COHORT[::-1], ARRAYS)
    scorer, zero = build(), np.zeros(1, dtype=np.int64)
    prepared = scorer.prepare(build_models(scorer))
    with pytest.raises(TypeError, match="densities of queries"):
        scorer.score_trials(QUERIES, zero, np.zeros(1), prepared, zero)


def test_trial_densities_are_those_of_the_cohort_without_the_class() -> None:
    scorer = build("all")
    labels = [*"abcdef", "x", "y"]
    query, klass = (part.ravel() for part in np.mgrid[: len(QUERIES), : len(labels)])
    of_trials = np.array(labels)[klass]
    shuffled = RNG.permutation(len(query))
    densities = scorer.compute_trial_densities(QUERIES, query[shuffled], of_trials[shuffled])
    expected = scorer.compute_densities(QUERIES[query[shuffled]], of_trials[shuffled])
    np.testing.assert_array_equal(densities, expected)
    many = build("all", neighbours=55.0)  # more than any nine of ten classes have
    np.testing.assert_array_equal(
        many.compute_trial_densities(QUERIES, query, of_trials),
        many.compute_densities(QUERIES[query], of_trials),
    )


def test_a_copy_of_an_item_is_of_its_class_however_loose_that_is() -> None:
    plain, raised = build("similarity"), build("similarity", copy=9.0)
    far = -CLASSES[1][:1]  # as unlike the class as can be, but for the item it is said to be a copy of
    prepared = plain.prepare(build_models(plain))
    only, klass = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    for best, is_copy in ((0.99999, False), (0.9999995, True), (1.0, True)):
        nearest = np.array([best], dtype=np.float32)
        before, after = (s.score_trials(far, only, nearest, prepared, klass) for s in (plain, raised))
        assert before < 0
        assert after == (9.0 if is_copy else before)
    higher = build("similarity", copy=-50.0)
    best = np.ones(1, dtype=np.float32)
    np.testing.assert_array_equal(
        higher.score_trials(far, only, best, prepared, klass),
        plain.score_trials(far, only, best, prepared, klass),
    )
