"""Sets one after the other: what is missing stays missing, digits stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet, concatenate, join_columns


def make_set(names: str, **metadata: Any) -> EmbeddingSet:
    return EmbeddingSet.from_arrays(np.eye(len(names), 3) + 1, list(names), list(names), metadata)


def test_columns_of_sets_are_joined_with_what_is_missing() -> None:
    first = make_set("ab", whole=[2**53 + 1, None], text=["x", None], own=[1.5, None])
    second = make_set("cd", whole=[None, 4], text=[None, "long text"])
    joined = concatenate([first, second])
    assert joined.metadata["whole"].tolist() == [2**53 + 1, None, None, 4]
    assert joined.metadata["text"].tolist() == ["x", None, None, "long text"]
    assert joined.metadata["own"].tolist() == [1.5, None, None, None]
    assert joined.metadata["whole"].dtype == np.int64


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, None], [0.5], [1.0, None, 0.5]),
        ([2**60 + 1], [0.5], ["1152921504606846977", "0.5"]),
        ([1], ["a"], ["1", "a"]),
        ([None], [3], [None, 3]),
        ([True], ["x"], ["true", "x"]),
    ],
)
def test_columns_of_two_types_lose_nothing(first: list[Any], second: list[Any], expected: list[Any]) -> None:
    sets = [make_set("abc"[: len(first)], m=first), make_set("xyz"[: len(second)], m=second)]
    assert concatenate(sets).metadata["m"].tolist() == expected


def test_dates_beside_times_are_their_midnight() -> None:
    dates = np.array(["2024-01-31"], dtype="M8[D]")
    times = np.array(["2024-01-31T12:00:00.000000001"], dtype="M8[ns]")
    joined = join_columns([dates, times, None], [1, 1, 2])
    assert joined.dtype == np.dtype("M8[ns]")
    assert np.ma.getmaskarray(joined).tolist() == [False, False, True, True]
    assert joined[0] == np.datetime64("2024-01-31T00:00")
    assert joined[1] == times[0]
