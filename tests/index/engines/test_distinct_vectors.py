"""One node for all copies of a vector."""

from __future__ import annotations

import numpy as np
import pytest

from index.engines.distinct_vectors import Nodes, find_distinct_vectors
from tests.index.conftest import make_unit_rows


@pytest.mark.parametrize("copies", [0, 1, 7])
def test_rows_share_a_node_iff_their_vectors_are_equal(copies: int) -> None:
    rng = np.random.default_rng(copies)
    vectors = make_unit_rows(rng, 60)
    for source in range(copies):
        vectors[rng.integers(0, 60, size=5)] = vectors[source]
    firsts, node_of_row = find_distinct_vectors(vectors)
    for a in range(60):
        for b in range(60):
            assert (node_of_row[a] == node_of_row[b]) == np.array_equal(vectors[a], vectors[b])
    assert np.array_equal(vectors[firsts][node_of_row], vectors)
    assert (np.diff(firsts) > 0).all()


def test_minus_zero_is_zero() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, -0.0], [0.0, 1.0]], dtype=np.float32)
    firsts, node_of_row = find_distinct_vectors(vectors)
    assert node_of_row.tolist() == [0, 0, 1]
    assert firsts.tolist() == [0, 2]


def test_rows_of_a_node_come_in_the_order_asked_for_and_no_more_than_asked() -> None:
    nodes = Nodes.from_node_of_row(np.array([0, 1, 0, 0, 2]), np.array([4, 3, 2, 1, 0]))
    assert nodes.n_shared == 1
    candidates = np.array([[2, 0], [1, -1]])
    assert nodes.expand(candidates, at_most=2).tolist() == [[4, 3, 2], [1, -1, -1]]
    assert nodes.expand(candidates, at_most=None).tolist() == [[4, 3, 2, 0], [1, -1, -1, -1]]
    assert nodes.expand(np.empty((2, 0), dtype=np.int64), at_most=None).shape == (2, 0)
