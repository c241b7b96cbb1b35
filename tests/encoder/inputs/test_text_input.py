"""Texts as numbers of hashed n-grams."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from api_schemas.preprocessing import PreprocessingDocument, TextInput, TokenInput
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


@pytest.mark.parametrize(
    "text",
    [
        "Caf\xe9 cr\xe8me",
        "\u01f0ungle na\xefve",
        "\ud55c\uad6d\uc5b4",
        "\u0395\u03cd\u03b2\u03bf\u03b9\u03b1",
        "\u1e69 \u1ed9",
    ],
)
def test_composed_and_decomposed_spellings_are_one_text(text: str) -> None:
    rule = TextInput(buckets=1000, length=64, characters=[3, 4], words=[1], unicode_form="NFC")
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert composed != decomposed
    ids = NgramPreprocessing(rule).prepare([composed, decomposed, composed.upper(), decomposed.upper()])
    for row in ids[1:]:
        np.testing.assert_array_equal(row, ids[0])
    as_given = NgramPreprocessing(rule.model_copy(update={"unicode_form": None}))
    assert not np.array_equal(as_given.compute_ids(decomposed), as_given.compute_ids(composed))


def test_rules_of_older_models_keep_their_behaviour_and_their_bytes(tmp_path: Path) -> None:
    """Another byte of ``preprocessing.json`` would be another model, whose operating points are refused."""
    for rule in (
        TextInput(buckets=1000, length=32, characters=[3], words=[1, 2]),
        TokenInput(length=7, tokenizer_sha256="0" * 64),
    ):
        PreprocessingDocument(input=rule).save(tmp_path / "old.json")
        written = (tmp_path / "old.json").read_text()
        assert "unicode_form" not in written
        loaded = PreprocessingDocument.load(tmp_path / "old.json")
        assert loaded.input == rule
        assert loaded.to_json() == written
        new = rule.model_copy(update={"unicode_form": "NFC"})
        PreprocessingDocument(input=new).save(tmp_path / "new.json")
        assert PreprocessingDocument.load(tmp_path / "new.json").input == new
