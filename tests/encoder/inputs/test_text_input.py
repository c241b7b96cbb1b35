"""Texts as numbers of hashed n-grams."""

from __future__ import annotations

import numpy as np

from api_schemas.preprocessing import TextInput
from encoder.inputs.text_input import NgramPreprocessing


def test_the_same_text_gives_the_same_numbers_whatever_its_case_and_spaces() -> None:
    rule = TextInput(buckets=1000, length=32, characters=[3], words=[1, 2])
    compute_ids = NgramPreprocessing(rule).compute_ids
    numbers = compute_ids("Lost  my card\n")
    np.testing.assert_array_equal(numbers, compute_ids("lost my CARD"))
    assert numbers.dtype == np.float32
    assert numbers.max() < 1000
    assert (numbers[:5] > 0).all(), "three words and two pairs come first"
    assert not np.array_equal(numbers, compute_ids("my card lost"))
    assert len(compute_ids("x" * 10_000)) == 32
    assert compute_ids("").max() == 0


def test_tokens_are_counted_as_far_as_they_are_read() -> None:
    rule = TextInput(buckets=1000, length=4, words=[1], characters=[])
    count_tokens = NgramPreprocessing(rule).count_tokens
    assert [count_tokens(text) for text in ("one", "one two", "one one", "a b c d e f")] == [1, 2, 1, 4]
