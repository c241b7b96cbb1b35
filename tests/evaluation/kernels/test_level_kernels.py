"""Random halvings of classes, and levels of scores."""

from __future__ import annotations

import numpy as np

from evaluation.kernels.level_kernels import LevelSteps, count_levels, draw_halves
from evaluation.pairs.sweep import ScoreBins


def test_halvings_are_even_and_differ() -> None:
    starts, lanes = np.arange(0, 36, 7), 32
    first, again = np.zeros((2, 35, lanes), dtype=np.uint8)
    draw_halves(starts, 11, lanes, first)
    draw_halves(starts, 11, lanes, again)
    np.testing.assert_array_equal(first, again)
    sizes = np.add.reduceat(first.astype(int), starts[:-1])
    assert set(sizes.ravel()) == {3, 4}
    assert len(np.unique(first, axis=1).T) == lanes


def test_scores_are_counted_at_the_number_of_thresholds_they_reach() -> None:
    bins = ScoreBins.cover(0.0, 1.0)
    draw = np.random.default_rng(0)
    ascending = np.sort(draw.uniform(0, 1, 9).astype(np.float32))
    scores = np.concatenate([draw.uniform(-0.2, 1.2, 300).astype(np.float32), ascending])
    edges = bins.compute_edges(np.arange(bins.count))
    first = np.searchsorted(ascending, edges, side="right").astype(np.int64)
    first[0] = 0
    sizes = np.zeros(10, dtype=np.int64)
    count_levels(scores, LevelSteps(ascending, bins.scale, bins.lowest, first), sizes)
    reached = (scores[:, None] >= ascending[None, :]).sum(axis=1)
    np.testing.assert_array_equal(sizes, np.bincount(reached, minlength=10))
