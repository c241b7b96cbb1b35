"""Trials of a search against loops, and their parts."""

from __future__ import annotations

import numpy as np
import pytest

from common.progress import silent
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.trials import UNKNOWN, Trials
from evaluation.pairs import pairs as pairs_module
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import make_clusters, make_ties


def score_by_loop(items: EmbeddingSet, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """float [n, classes] with other classes, and [n] with the own one, the item itself left out.

    A copy of an item is of its class: then the best similarity counts, not the mean.
    """

    def combine(values: np.ndarray) -> float:
        return float(np.max(values) if rule == "nearest" or np.max(values) >= 0.999999 else np.mean(values))

    similarities = items.vectors.astype(np.float64) @ items.vectors.T.astype(np.float64)
    other = np.full((len(items), len(items.classes)), -np.inf)
    own = np.full(len(items), -np.inf)
    for query in range(len(items)):
        for code in range(len(items.classes)):
            rows = [row for row in np.flatnonzero(items.codes == code) if row != query]
            if rows and code == items.codes[query]:
                own[query] = combine(similarities[query, rows])
            elif rows:
                other[query, code] = combine(similarities[query, rows])
    return other, own


@pytest.mark.parametrize("rule", ["nearest", "mean_of_class"])
@pytest.mark.parametrize("make", [lambda: make_clusters(0, 9, 5), lambda: make_ties(1)])
def test_trials_are_those_of_a_loop(rule: str, make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "BLOCK_ROWS", 16)
    monkeypatch.setattr(pairs_module, "BLOCK_COLUMNS", 24)
    items = make()
    pairs = arrange(items)
    trials = SEARCH_RULES[rule].score_trials(pairs, silent)
    other, own = score_by_loop(items, rule)
    np.testing.assert_allclose(trials.other, other[pairs.a.rows], atol=1e-6)
    np.testing.assert_allclose(trials.own, own[pairs.a.rows], atol=1e-6)
    assert trials.gallery_items == len(items)


@pytest.mark.parametrize("rule", ["nearest", "mean_of_class"])
def test_queries_of_classes_outside_the_gallery_are_unknown(rule: str) -> None:
    gallery, strangers = make_clusters(0, 6, 4), make_clusters(1, 5, 3, prefix="a")
    pairs = arrange(strangers, gallery=gallery)
    trials = SEARCH_RULES[rule].score_trials(pairs, silent)
    assert (trials.codes == UNKNOWN).all()
    assert trials.other.shape == (15, 6)
    assert not trials.is_known.any()
    similarities = strangers.vectors[pairs.a.rows].astype(float) @ gallery.vectors.T.astype(float)
    combine = np.max if rule == "nearest" else np.mean
    for code in range(6):
        expected = combine(similarities[:, gallery.codes == code], axis=1)
        np.testing.assert_allclose(trials.other[:, code], expected, atol=1e-6)


@pytest.fixture(scope="module")
def trials() -> Trials:
    return SEARCH_RULES["nearest"].score_trials(arrange(make_clusters(0, 12, 5)), silent)


def test_rates_are_those_of_their_definition(trials: Trials) -> None:
    for threshold in (0.2, 0.5, 0.8):
        best = trials.other.max(axis=1)
        assert trials.measure_fpir(threshold) == np.mean(best >= np.float32(threshold))
        missed = (trials.own < np.float32(threshold)) | (trials.own <= best)
        assert trials.measure_fnir(threshold) == pytest.approx(missed.mean())


def test_some_classes_are_those_of_a_smaller_set(trials: Trials) -> None:
    items = make_clusters(0, 12, 5)
    kept = np.arange(12) % 3 != 1
    part = trials.select_classes(kept)
    fresh = SEARCH_RULES["nearest"].score_trials(arrange(items.select_classes(items.classes[kept])), silent)
    np.testing.assert_array_equal(part.other, fresh.other)
    np.testing.assert_array_equal(part.own, fresh.own)
    np.testing.assert_array_equal(part.codes, fresh.codes)
    assert part.gallery_items == fresh.gallery_items
    assert part.n_trials == fresh.n_trials == 40 * 7


def test_the_highest_trials_are_ranked(trials: Trials) -> None:
    finite = np.sort(trials.other[np.isfinite(trials.other)])[::-1]
    ranked = trials.collect_top(0.1)
    assert ranked.trials == len(finite) == 60 * 11
    np.testing.assert_allclose(ranked.scores, finite[: len(ranked.scores)])
    assert len(ranked.scores) >= 0.1 * len(finite)
    assert ranked.count_matched(float(finite[20])) == (finite >= finite[20]).sum()
    assert (ranked.query != ranked.gallery).all()
    assert trials.collect_top(0.05) is ranked, "a shorter one is part of it"
    assert len(trials.collect_above(-2.0).scores) == len(finite)
