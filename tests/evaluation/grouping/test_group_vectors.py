"""Grouping equals exact average linkage, whatever the order of the rows, and joins no chains."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from common.array_types import Int64s, UnitVectors
from evaluation.grouping import group_vectors as grouping
from evaluation.grouping.group_vectors import group_vectors


def make_pool(seed: int = 0, n_classes: int = 60, noise: float = 0.7) -> tuple[UnitVectors, Int64s]:
    """Classes of 1 to 20 items, and as many items of no class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(2 * n_classes), [*rng.integers(1, 21, n_classes), *[1] * n_classes])
    centres = rng.normal(size=(2 * n_classes, 24))
    vectors = centres[labels] + noise * rng.normal(size=(len(labels), 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


def group_plainly(vectors: UnitVectors, threshold: float) -> Int64s:
    """Average linkage of all pairs, with scipy."""
    distances = np.clip(1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64), 0, 2)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    codes = fcluster(tree, 1 - threshold, "distance")
    sizes = np.bincount(codes)
    return np.where(sizes[codes] >= 2, codes, -1)


def as_partition(of_row: Int64s) -> set[frozenset[int]]:
    """The rows of each group, without the numbers of the groups."""
    return {frozenset(np.flatnonzero(of_row == group).tolist()) for group in np.unique(of_row[of_row >= 0])}


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5, 0.7])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_average_linkage(threshold: float, seed: int) -> None:
    vectors, _ = make_pool(seed)
    found = group_vectors(vectors, threshold)
    assert as_partition(found.of_row) == as_partition(group_plainly(vectors, threshold))


def test_groups_of_more_items_than_links_are_whole() -> None:
    """A group of 300 has far more neighbours than the 32 links of a row."""
    rng = np.random.default_rng(0)
    centres = np.eye(24, dtype=np.float32)[:3]
    labels = rng.permutation(np.repeat(np.arange(3), 300))
    vectors = centres[labels] + 0.15 * rng.normal(size=(900, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = group_vectors(vectors, 0.3)
    assert as_partition(found.of_row) == as_partition(labels)


def test_order_of_rows_changes_nothing() -> None:
    vectors, _ = make_pool()
    vectors = np.concatenate([vectors, vectors[:40]])  # copies among them
    order = np.random.default_rng(5).permutation(len(vectors))
    found, shuffled = group_vectors(vectors, 0.4), group_vectors(vectors[order], 0.4)
    back = np.empty_like(shuffled.of_row)
    back[order] = shuffled.of_row
    assert np.array_equal(found.of_row, back)
    np.testing.assert_allclose(found.centres, shuffled.centres, atol=1e-6)


def test_copies_count_as_many_rows() -> None:
    """The average over copies is that of their one vector, and the group counts all of them."""
    near = np.array([1.0, 0.0]), np.array([np.cos(0.5), np.sin(0.5)]), np.array([np.cos(1.2), np.sin(1.2)])
    vectors = np.array([near[0]] * 20 + [near[1], near[2]], dtype=np.float32)
    # alone, the second row is nearer to the first (0.88) than to the third (0.76)
    found = group_vectors(vectors, 0.7)
    assert as_partition(found.of_row) == {frozenset(range(21))}


def test_chain_of_lookalikes_is_not_one_group() -> None:
    """Each step reaches the threshold, the ends are far apart: connected components would be one group."""
    angles = np.linspace(0, np.pi * 0.9, 40)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    threshold = 0.9
    assert (vectors[:-1] * vectors[1:]).sum(axis=1).min() > threshold
    found = group_vectors(vectors, threshold)
    assert len(found.sizes) > 2
    for group in range(len(found.sizes)):
        rows = np.flatnonzero(found.of_row == group)
        similarities = (vectors[rows] @ vectors[rows].T)[np.triu_indices(len(rows), 1)]
        assert similarities.mean() > 0.85


def test_noise_is_in_no_group_and_groups_are_large_enough() -> None:
    vectors, _ = make_pool()
    found = group_vectors(vectors, 0.5, min_size=4)
    assert found.sizes.tolist() == sorted(found.sizes.tolist(), reverse=True)
    assert found.sizes.min() >= 4
    assert np.array_equal(np.bincount(found.of_row[found.of_row >= 0]), found.sizes)
    assert (found.of_row == -1).any()
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1, atol=1e-6)
    for group in range(len(found.sizes)):
        mean = vectors[found.of_row == group].mean(axis=0)
        assert found.centres[group] @ mean / np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(n: int) -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (n, 1))
    found = group_vectors(vectors, 0.9)
    assert found.of_row.tolist() == ([0, 0] if n == 2 else [-1] * n)
    assert found.centres.shape == (int(n == 2), 2)


def test_absorption_by_large_groups_keeps_classes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lower bound for it than in use, so that small groups show it."""
    vectors, labels = make_pool(noise=0.25)
    monkeypatch.setattr(grouping, "ABSORBING", 2)
    sizes = np.bincount(labels)
    assert as_partition(group_vectors(vectors, 0.8).of_row) == as_partition(
        np.where(sizes[labels] > 1, labels, -1)
    )


def test_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one size are multiplied, whatever the number of rows."""
    from evaluation.pairs import neighbours

    shapes = []
    multiply = neighbours.multiply_rows

    def watch(a: UnitVectors, b: UnitVectors, out: UnitVectors) -> UnitVectors:
        shapes.append(out.size)
        return multiply(a, b, out)

    monkeypatch.setattr(neighbours, "multiply_rows", watch)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group_vectors(vectors, 0.95)
    assert max(shapes) <= neighbours.BLOCK_ROWS * neighbours.BLOCK_COLUMNS
    assert len(shapes) > 9
