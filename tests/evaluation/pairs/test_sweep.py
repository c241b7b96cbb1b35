"""A walk over the pairs is exact, whatever the sample before it was, in memory and on disk."""

from __future__ import annotations

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs import sweep as module
from evaluation.pairs import top_impostors
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import ScoreBins, Sweep, sweep_pairs


@pytest.fixture
def items() -> EmbeddingSet:
    draw = np.random.default_rng(2)
    vectors = draw.integers(-2, 3, size=(90, 3)).astype(float) + 0.5
    return EmbeddingSet.from_arrays(vectors, draw.integers(0, 9, 90))


def collect_impostors(swept: Sweep) -> np.ndarray:
    return np.sort(
        np.concatenate([b.scores[swept.pairs.mask_impostors(b)] for b in swept.pairs.iterate_blocks()])
    )


def test_order_statistics_are_exact_above_and_below_the_floor(items: EmbeddingSet) -> None:
    swept = sweep_pairs(arrange(items))
    expected = collect_impostors(swept)[::-1]
    ranks = np.array([1, 2, 17, swept.top.length, len(expected) // 2, len(expected) - 1, len(expected)])
    np.testing.assert_array_equal(swept.find_impostor_scores(ranks), expected[ranks - 1])


def test_the_kept_pairs_are_all_that_reach_the_floor(items: EmbeddingSet) -> None:
    swept = sweep_pairs(arrange(items))
    expected = collect_impostors(swept)
    assert 0.1 * len(expected) <= swept.top.length < len(expected)
    kept = np.concatenate([scores for _, _, scores in swept.top.chunks])
    np.testing.assert_array_equal(np.sort(kept), expected[expected >= swept.floor])
    for a, b, scores in swept.top.chunks:
        codes = swept.pairs.a.codes
        assert np.all(codes[a] != codes[b])
        all_scores = swept.pairs.score_block(slice(0, 90), slice(0, 90)).scores
        np.testing.assert_array_equal(all_scores[a, b], scores)


def test_a_sample_that_misleads_costs_a_second_walk_and_changes_nothing(
    items: EmbeddingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = sweep_pairs(arrange(items), deepest_far=0.3)
    misleading = ScoreBins.cover(0.5, 0.6), np.float32(0.99)
    monkeypatch.setattr(module, "_estimate_bins_and_floor", lambda *_: misleading)
    misled = sweep_pairs(arrange(items), deepest_far=0.3)
    ranks = np.arange(1, swept.pairs.n_impostor, 13)
    np.testing.assert_array_equal(misled.find_impostor_scores(ranks), swept.find_impostor_scores(ranks))
    assert misled.top.length >= 0.3 * swept.pairs.n_impostor


def test_pairs_beyond_the_memory_lie_on_disk(items: EmbeddingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = sweep_pairs(arrange(items), deepest_far=0.5).top.chunks
    monkeypatch.setattr(top_impostors, "SLAB", 50)
    monkeypatch.setattr(top_impostors, "IN_MEMORY", 1000)  # two slabs of 50 pairs at 8 bytes
    on_disk = sweep_pairs(arrange(items), deepest_far=0.5)
    assert [isinstance(chunk[0], np.memmap) for chunk in on_disk.top.chunks[:4]] == [False, False, True, True]
    assert sum(len(chunk[0]) for chunk in on_disk.top.chunks) == on_disk.top.length > 200
    for column in range(3):
        np.testing.assert_array_equal(
            np.concatenate([chunk[column] for chunk in on_disk.top.chunks]),
            np.concatenate([chunk[column] for chunk in in_memory]),
        )


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
