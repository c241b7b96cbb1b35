"""Identification by the mean of a class, against loops over queries and classes."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from api_schemas.operating_point import OperatingPoint, Target
from common.errors import CalibrationRefused
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.class_mean_scores import iterate_class_means, score_mean_trials
from evaluation.calibration.scores.density_score import fit_csls
from evaluation.calibration.trials import sample_labelled_trials
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import calibrate

TARGET = Target(kind="fpir", value=0.1, aggregate="mean_of_class")


def make_uneven(seed: int, classes: int, prefix: str = "c") -> EmbeddingSet:
    """Classes of one to seven items, in no order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, classes)
    sizes[0] = 1
    centres = np.repeat(rng.normal(size=(classes, 12)), sizes, axis=0)
    labels = np.repeat([f"{prefix}{number}" for number in range(classes)], sizes)
    order = rng.permutation(len(labels))
    return EmbeddingSet.from_arrays((centres + 0.8 * rng.normal(size=centres.shape))[order], labels[order])


def compute_by_loop(items: EmbeddingSet, scorer: Scorer) -> list[dict[str, float]]:
    """For each item its mean score with the other items of every class, pair by pair."""
    densities = scorer.compute_densities(items.vectors)
    per_query = []
    for query in range(len(items)):
        means = {}
        for label in items.classes:
            rows = [row for row in np.flatnonzero(items.labels == label) if row != query]
            if rows:
                similar = compute_pair_similarities(items.vectors[rows], items.vectors[query][None])
                scores = scorer(similar, densities[query], densities[rows])
                means[str(label)] = float(np.float32(scores.astype(np.float64).mean()))
                copies = scores[similar >= 0.999999]
                means[str(label)] = max([means[str(label)], *copies.astype(float).tolist()])
        per_query.append(means)
    return per_query


@pytest.mark.parametrize("kind", ["cosine", "density"])
def test_means_are_those_of_a_loop(kind: str) -> None:
    items = make_uneven(0, 30)
    vectors = items.vectors.copy()
    vectors[1::9] = vectors[::9][: len(vectors[1::9])]  # copies, most of them under two labels
    items = EmbeddingSet(vectors, items.labels, items.ids)
    scorer: Scorer = CosineScorer() if kind == "cosine" else fit_csls(make_uneven(1, 80, "k"))
    pairs = arrange(items, scorer=scorer)
    expected = compute_by_loop(items, scorer)
    seen = 0
    for rows, means in iterate_class_means(pairs):
        for position, row in enumerate(range(rows.start, rows.stop)):
            wanted = expected[pairs.a.rows[row]]
            for label, mean in zip(pairs.classes, means[position], strict=True):
                assert mean == pytest.approx(wanted.get(str(label), -np.inf), abs=1e-6)
                seen += 1
    assert seen == len(items) * 30
    trials = score_mean_trials(pairs)
    same, other = trials.own, trials.best_other
    for row in range(len(items)):
        of = expected[pairs.a.rows[row]]
        own = str(items.labels[pairs.a.rows[row]])
        assert same[row] == pytest.approx(of.get(own, -np.inf), abs=1e-6)
        assert other[row] == pytest.approx(max(m for label, m in of.items() if label != own), abs=1e-6)


def test_trials_are_queries_with_classes_that_are_not_theirs() -> None:
    items = make_uneven(2, 40)
    pairs = arrange(items)
    expected = compute_by_loop(items, CosineScorer())
    means = [
        mean
        for row, of in enumerate(expected)
        for label, mean in of.items()
        if label != str(items.labels[row])
    ]
    unknown = score_mean_trials(pairs).collect_above(0.2)
    assert unknown.trials == len(items) * 39 == len(means)
    assert unknown.scores == pytest.approx(sorted((m for m in means if m >= 0.2), reverse=True), abs=1e-6)
    assert unknown.compute_match_rate(0.3) == pytest.approx(np.mean(np.array(means) >= 0.3))
    assert (unknown.query != unknown.gallery).all()
    assert len(score_mean_trials(pairs).collect_top(0.1).scores) == int(0.1 * len(means)) + 1


def test_probabilities_are_fitted_on_means() -> None:
    items = make_uneven(3, 40)
    pairs = arrange(items)
    labelled = sample_labelled_trials(pairs, score_mean_trials(pairs), seed=0)
    expected = compute_by_loop(items, CosineScorer())
    own = [of[str(items.labels[row])] for row, of in enumerate(expected) if str(items.labels[row]) in of]
    assert np.sort(labelled.scores[labelled.genuine]) == pytest.approx(np.sort(own), abs=1e-6)
    assert (~labelled.genuine).sum() == len(items) * 39, "few enough to be taken all"
    assert ((labelled.first == labelled.second) == labelled.genuine).all()


def make_point(items: EmbeddingSet, target: Target, proof: EmbeddingSet | None = None) -> OperatingPoint:
    return calibrate(items, target, proof=proof).point


def test_a_point_for_means_is_fitted_and_proven_on_means() -> None:
    fit, proof = make_uneven(4, 60), make_uneven(5, 60, "t")
    point = make_point(fit, TARGET, proof)
    assert point.target.aggregate == "mean_of_class"
    unknown = missed = known = 0
    for row, of in enumerate(compute_by_loop(proof, CosineScorer())):
        own = of.pop(str(proof.labels[row]), None)
        best = max(of.values())
        unknown += best >= np.float32(point.threshold)
        if own is not None:
            known += 1
            missed += own < np.float32(point.threshold) or own <= best
    assert point.proof.fpir == pytest.approx(unknown / len(proof))
    assert point.proof.fnir == pytest.approx(missed / known)
    assert point.fit.fpir_upper <= 0.1
    assert point.proof.far is None, "no pair is thresholded"
    assert point.per_class == []
    assert point.consistency is None
    assert point.probability is not None
    assert make_point(fit, TARGET).proof is not None, "folds"


def test_a_mean_finds_what_the_nearest_finds_at_another_threshold() -> None:
    """Means vary less than best scores: at the nearest's threshold fewer queries would match."""
    items = make_uneven(6, 60)
    mean, nearest = make_point(items, TARGET), make_point(items, Target(kind="fpir", value=0.1))
    assert mean.threshold < nearest.threshold
    assert mean.id != nearest.id
    assert "aggregate" not in nearest.model_dump()["target"], "such a point reads as it always did"
    assert OperatingPoint.model_validate_json(mean.to_json()) == mean
    assert OperatingPoint.model_validate_json(nearest.to_json()).target.aggregate == "nearest"


def test_what_cannot_be_supported_is_refused() -> None:
    with pytest.raises(CalibrationRefused, match="give more classes"):
        make_point(make_uneven(7, 20), TARGET.model_copy(update={"value": 1e-8}))


@pytest.mark.parametrize("kind", ["far", "frr", "eer", "cost"])
def test_only_a_search_aggregates(kind: str) -> None:
    with pytest.raises(ValidationError, match="about pairs and has no aggregate"):
        Target.model_validate({"kind": kind, "value": 0.1, "aggregate": "mean_of_class"})
