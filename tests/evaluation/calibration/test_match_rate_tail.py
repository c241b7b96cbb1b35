"""The match rate of one class against loops, and its tail on lookalike classes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from api_schemas.operating_point import GallerySize
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.fpir_thresholds import plan_gallery
from evaluation.calibration.match_rate_tail import fit_match_rate_tail
from evaluation.calibration.nearest_scores import score_nearest_trials
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import list_all_pairs, make_clusters


def test_the_match_rate_is_that_of_a_loop_and_bounds_the_fpir_of_every_gallery() -> None:
    items = make_clusters(2, 8, 5)
    unknown = score_nearest_trials(arrange(items)).collect_top(1.0)
    best = np.full((len(items), 8), -np.inf)
    codes = np.searchsorted(items.classes, items.labels)
    i, j, scores, genuine = list_all_pairs(items)
    for a, b, score in zip(i[~genuine], j[~genuine], scores[~genuine], strict=True):
        best[a, codes[b]] = max(best[a, codes[b]], score)
        best[b, codes[a]] = max(best[b, codes[a]], score)
    assert unknown.trials == np.isfinite(best).sum()
    for threshold in (0.3, 0.6):
        rate = unknown.compute_match_rate(threshold)
        assert rate == pytest.approx(accepts(best[np.isfinite(best)], threshold).mean(), abs=1e-6)
        for drawn in (1, 2, 3):  # of a population of these classes
            naive = np.mean(
                [
                    accepts(best[q, list(gallery)].max(), threshold)
                    for q in range(len(items))
                    for gallery in itertools.product([c for c in range(8) if c != codes[q]], repeat=drawn)
                ]
            )
            size = GallerySize(items=5 * drawn, classes=drawn)
            bound = plan_gallery(len(items), 8, size).compute_fpir(rate)
            assert bound == pytest.approx(naive) if drawn == 1 else bound >= naive


def test_lookalikes_are_never_explained_away_by_the_tail() -> None:
    """Eight pairs of classes that are all but copies: no bound lies below what is counted there."""
    items = make_clusters(3, 80, 8)
    vectors = items.vectors.copy()
    vectors[64:128] = vectors[:64] + 0.01 * np.random.default_rng(4).standard_normal((64, 12))
    pairs = arrange(EmbeddingSet.from_arrays(vectors, items.labels))
    unknown = score_nearest_trials(pairs).collect_top(0.08)
    rates = fit_match_rate_tail(unknown, 0.3 / 80, draw_classes(80, 0))
    for threshold in (0.98, 0.99, 0.998):
        counted = unknown.compute_match_rate(threshold)
        assert counted > 2e-3
        assert rates.compute_interval(threshold, 0.95).upper_bound >= counted
