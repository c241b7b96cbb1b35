"""Ids of groups stay when the grouping runs again."""

from __future__ import annotations

from itertools import count

import numpy as np

from evaluation.grouping.group_ids import keep_group_ids
from evaluation.grouping.group_vectors import Groups


def run_again(of_key: dict[str, int], previous: dict[str, str]) -> list[str]:
    of_row = np.array(list(of_key.values()))
    sizes = np.bincount(of_row[of_row >= 0])
    numbers = count()
    groups = Groups(of_row, np.zeros((len(sizes), 2), dtype=np.float32), sizes)
    return keep_group_ids(groups, list(of_key), previous, lambda: f"new{next(numbers)}")


def test_first_run_makes_ids() -> None:
    assert run_again({"a": 0, "b": 0, "c": 1, "d": 1, "e": -1}, {}) == ["new0", "new1"]


def test_groups_keep_their_ids_when_rows_come_and_go() -> None:
    previous = {"a": "x", "b": "x", "gone": "x", "c": "y", "d": "y"}
    assert run_again({"d": 0, "c": 0, "e": 0, "b": 1, "a": 1}, previous) == ["y", "x"]


def test_larger_half_of_a_split_keeps_the_id() -> None:
    previous = dict.fromkeys("abcde", "x")
    assert run_again({"a": 0, "b": 0, "c": 1, "d": 1, "e": 1}, previous) == ["new0", "x"]


def test_joined_groups_keep_the_id_of_the_larger() -> None:
    previous = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "y"}
    assert run_again(dict.fromkeys("abcde", 0), previous) == ["y"]


def test_id_is_given_once() -> None:
    """Two new groups have the same old group as their largest: the one with fewer of it takes its next."""
    previous = {"a": "x", "b": "x", "c": "x", "d": "x", "e": "x", "f": "y"}
    assert run_again({"a": 0, "b": 0, "c": 0, "d": 1, "e": 1, "f": 1}, previous) == ["x", "y"]


def test_order_of_the_rows_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    keys = [f"k{k}" for k in range(60)]
    previous = {key: f"g{rng.integers(6)}" for key in keys[:40]}
    of_key = {key: int(rng.integers(5)) for key in keys}
    ids = run_again(of_key, previous)
    shuffled = {key: of_key[key] for key in rng.permutation(keys)}
    assert run_again(shuffled, previous) == ids
