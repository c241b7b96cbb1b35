"""Bins of scores have exact edges."""

from __future__ import annotations

import numpy as np

from evaluation.pairs.sweep import ScoreBins


def test_bins_have_exact_edges() -> None:
    draw = np.random.default_rng(0)
    for low, high in ((-1.0, 1.0), (0.2, 0.9), (-40.0, 25.0), (0.9999, 1.0)):
        bins = ScoreBins.cover(low, high)
        assert 500 < bins.count <= 2**21
        scores = draw.uniform(low, high, 2000).astype(np.float32)
        edges = bins.compute_edges(bins.find(scores))
        scores = np.concatenate([scores, edges, np.nextafter(edges, np.float32(-np.inf))])
        chosen = np.unique(draw.integers(1, bins.count, 300))
        for b, edge in zip(chosen, bins.compute_edges(chosen), strict=True):
            np.testing.assert_array_equal(scores >= edge, bins.find(scores) >= b)
