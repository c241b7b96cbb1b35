"""Groups are taken apart where they hold cores of several classes, and left where they are one wide class."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.grouping.group_vectors import Groups, build_groups, group_vectors
from evaluation.grouping.split_groups import split_groups

DIMENSION = 64


def draw(seed: int, centres: np.ndarray, each: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.repeat(centres, each, axis=0) + spread / 8 * rng.normal(size=(len(centres) * each, DIMENSION))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def make_centres(similarity: float, n: int = 2) -> np.ndarray:
    """Unit vectors with this similarity to each other."""
    axes = np.eye(n + 1, DIMENSION)
    return np.sqrt(similarity) * axes[n] + np.sqrt(1 - similarity) * axes[:n]


def split(vectors: np.ndarray, threshold: float, strict: float, min_size: int = 2) -> tuple[Groups, Groups]:
    groups = group_vectors(vectors, threshold, min_size=min_size)
    return groups, split_groups(vectors, groups, threshold, strict, min_size)


def test_two_tight_classes_side_by_side_are_taken_apart() -> None:
    vectors = draw(0, make_centres(0.75), 10, 0.25)
    before, after = split(vectors, 0.6, 0.8)
    assert before.sizes.tolist() == [20], "their items are as alike as those of one wide class"
    assert after.sizes.tolist() == [10, 10]
    assert len(set(after.of_row[:10].tolist())) == 1
    assert after.centres[after.of_row[0]] @ vectors[:10].mean(axis=0) > 0.9


def test_a_wide_class_stays_one_or_falls_into_few_parts() -> None:
    """At a strict threshold alone it falls into many, and loses most of its items."""
    parts, kept, whole = [], [], 0
    for seed in range(10):
        vectors = draw(seed, make_centres(0.5, 1), 40, 0.8)
        similarities = (vectors @ vectors.T)[np.triu_indices(40, 1)]
        strict = float(np.quantile(similarities, 0.8))
        before, after = split(vectors, float(np.quantile(similarities, 0.02)), strict)
        assert before.sizes.tolist() == [40]
        alone = group_vectors(vectors, strict, min_size=3)
        parts.append((len(after.sizes), len(alone.sizes)))
        kept.append((after.sizes.sum(), alone.sizes.sum()))
        whole += len(after.sizes) == 1
    assert np.mean(parts, axis=0)[0] < 0.6 * np.mean(parts, axis=0)[1]
    assert np.mean(kept, axis=0)[0] >= 38 > np.mean(kept, axis=0)[1]
    assert 0 < whole < 10


def test_what_is_in_no_core_goes_where_it_belongs_or_nowhere() -> None:
    centres = make_centres(0.75)
    near = draw(5, centres[:1], 1, 0.9)
    vectors = np.concatenate([draw(0, centres, 10, 0.25), near])
    groups = Groups(np.zeros(21, dtype=np.int64), vectors[:1], np.array([21]))
    after = split_groups(vectors, groups, 0.5, 0.8, 2)
    assert after.of_row[20] == after.of_row[0]
    assert sorted(after.sizes.tolist()) == [10, 11]
    alone = split_groups(vectors, groups, 0.9, 0.91, 2)
    assert alone.of_row[20] == -1


@pytest.mark.parametrize("each", [0, 1, 2])
def test_groups_too_small_for_two_cores_are_left(each: int) -> None:
    vectors = draw(0, make_centres(0.75), each, 0.1)
    before, after = split(vectors, 0.6, 0.9)
    assert np.array_equal(before.of_row, after.of_row)
    assert before.sizes.tolist() == after.sizes.tolist()


def test_order_of_rows_changes_nothing() -> None:
    vectors = draw(3, make_centres(0.75, 4), 8, 0.3)
    order = np.random.default_rng(0).permutation(len(vectors))
    _, straight = split(vectors, 0.6, 0.8)
    _, shuffled = split(vectors[order], 0.6, 0.8)
    same = straight.of_row[order]
    assert len(straight.sizes) == 4
    assert ((same[:, None] == same[None]) == (shuffled.of_row[:, None] == shuffled.of_row[None])).all()


def test_a_group_of_very_many_classes_is_taken_apart() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(400), 4)
    vectors = rng.normal(size=(400, 64))[truth] + 0.2 * rng.normal(size=(len(truth), 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    whole = build_groups(vectors, np.zeros(len(truth), dtype=np.int64), 2)
    found = split_groups(vectors, whole, threshold=0.2, strict=0.8, min_size=2)
    assert len(found.sizes) == 400
    assert len(set(zip(truth.tolist(), found.of_row.tolist(), strict=True))) == 400
