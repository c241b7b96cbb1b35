"""The search for a FAR threshold against its slow twin; parts of a set against fresh ones; refusals."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Target
from common.errors import CalibrationRefused
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.bootstrap_bounds import build_class_matrix
from evaluation.calibration.pair_thresholds import (
    CalibrationSet,
    find_far_threshold,
    find_last_true,
    find_last_true_near,
)
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import list_all_pairs, make_clusters


def find_far_threshold_slowly(data: CalibrationSet) -> float:
    """Every score as a threshold, each with its resampled bound, from the highest down."""
    items = data.pairs.a
    first, second = np.triu_indices(len(items), 1)
    impostor = items.codes[first] != items.codes[second]
    first, second = first[impostor], second[impostor]
    vectors = items.vectors.astype(np.float64)
    scores = np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float32)
    best = np.nan
    for threshold in np.unique(scores)[::-1][29:]:
        accepted = scores >= threshold
        matrix = build_class_matrix(
            items.codes[first[accepted]],
            items.codes[second[accepted]],
            np.full(accepted.sum(), 2.0),
            len(data.pairs.classes),
        )
        if data.estimate_far_interval(matrix).upper_bound > data.rate:
            return float(best)
        best = threshold
    return float(best)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_threshold_is_that_of_trying_every_score(seed: int) -> None:
    data = CalibrationSet(
        arrange(make_clusters(seed, 30, 4)), Target(kind="far", value=0.03), seed, draws=200
    )
    assert find_far_threshold(data) == find_far_threshold_slowly(data)


def test_the_last_true_is_found_from_anywhere() -> None:
    for last in (0, 1, 57, 198):
        for near in (0, 3, 100, 199):
            assert find_last_true_near(lambda k, last=last: k <= last, near, 0, 200) == last
        assert find_last_true(lambda k, last=last: k <= last, 0, 200) == last
    close = find_last_true(lambda k: k <= 123_456, 0, 10**6, 0.01)
    assert 0.99 * 123_456 <= close <= 123_456


def test_a_part_of_a_set_is_that_of_fewer_classes() -> None:
    items = make_clusters(3, 30, 5)
    whole = CalibrationSet(arrange(items), Target(kind="far", value=0.05), 0)
    whole.scored.collect_tail(0.1)
    kept = np.arange(30) % 4 != 0
    part = whole.scored.restrict(kept)
    fresh = CalibrationSet(arrange(items.select_classes(items.classes[kept])), whole.target, 0)
    np.testing.assert_array_equal(part.pairs.a.vectors, fresh.pairs.a.vectors)
    np.testing.assert_array_equal(part.pairs.a.codes, fresh.pairs.a.codes)
    assert part.pairs.n_impostor == fresh.pairs.n_impostor
    np.testing.assert_array_equal(part.genuine.per_class, fresh.genuine.per_class)
    np.testing.assert_allclose(np.sort(part.genuine.scores), np.sort(fresh.genuine.scores))
    for threshold in (0.5, 0.7, 0.8):
        np.testing.assert_array_equal(part.count_accepted(threshold), fresh.scored.count_accepted(threshold))


def test_pairs_at_any_threshold_are_counted_once_and_exactly() -> None:
    items = make_clusters(4, 20, 5)
    data = CalibrationSet(arrange(items), Target(kind="far", value=0.05), 0)
    _, _, scores, genuine = list_all_pairs(items)
    for threshold in (0.9, 0.2, 0.6, -1.0):
        assert data.scored.count_accepted(threshold).sum() / 2 == (scores[~genuine] >= threshold).sum()


def test_a_refusal_says_whether_pairs_or_distinct_classes_are_missing() -> None:
    few = CalibrationSet(arrange(make_clusters(0, 20, 4)), Target(kind="far", value=1e-4), 0)
    with pytest.raises(CalibrationRefused, match=r"takes about 600000 pairs.* and there are 3040"):
        find_far_threshold(few)
    items = make_clusters(1, 40, 20)
    vectors = items.vectors.copy()
    alike = items.codes < 3
    vectors[alike] = vectors[0] + 0.02 * np.random.default_rng(0).standard_normal((int(alike.sum()), 12))
    same = CalibrationSet(
        arrange(EmbeddingSet.from_arrays(vectors, items.labels)), Target(kind="far", value=0.003), 0
    )
    with pytest.raises(CalibrationRefused, match="are of 3 distinct classes"):
        find_far_threshold(same)
