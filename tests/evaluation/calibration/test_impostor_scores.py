"""The highest impostor pairs, and those near a threshold, as decisions score them."""

from __future__ import annotations

import numpy as np

from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.impostor_scores import collect_tail, count_accepted_pairs
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import list_all_pairs, make_clusters


def test_pairs_at_the_threshold_are_decided_by_the_kernel() -> None:
    """Duplicated items tie at every score; the counts must be those of the kernel, not of a product."""
    fit = make_clusters(0)
    twice = EmbeddingSet.from_arrays(
        np.concatenate([fit.vectors, fit.vectors]), np.concatenate([fit.labels, fit.labels])
    )
    _, _, scores, genuine = list_all_pairs(twice)
    for threshold in np.sort(scores[~genuine])[[-3, -40, -500]]:
        accepted = count_accepted_pairs(arrange(twice), float(threshold)).sum() / 2
        assert accepted == accepts(scores[~genuine], float(threshold)).sum()


def test_the_tail_holds_exactly_the_best_pairs() -> None:
    fit = make_clusters(0)
    _, _, scores, genuine = list_all_pairs(fit)
    floor = float(np.sort(scores[~genuine])[-300])
    tail = collect_tail(arrange(fit), floor)
    np.testing.assert_array_equal(
        tail.scores, np.sort(scores[~genuine & (scores >= np.float32(floor))])[::-1]
    )
    assert tail.count_accepted(floor) == len(tail)
    settled = tail.rescore_near(floor)
    np.testing.assert_array_equal(settled.scores, tail.scores)
