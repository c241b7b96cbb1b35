"""Text to numbers without a vocabulary: hashed n-grams (Joulin et al. 2017, arXiv 1607.01759, section 3)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from api_schemas.preprocessing import TextInput
from common.array_types import Float32s


def ngram_numbers(text: str, rule: TextInput) -> Float32s:
    """The numbers of a text's distinct n-grams, words first: float32 [rule.length], zeros at the end.

    Words are hashed with a mark of their own, so that the word "the" is not the three letters. CRC-32 is
    the hash: equal on every machine, and in the standard library.
    """
    numbers = np.zeros(rule.length, dtype=np.float32)
    distinct = dict.fromkeys(_ngrams(text, rule))
    for place, ngram in zip(range(rule.length), distinct, strict=False):
        numbers[place] = 1 + zlib.crc32(ngram.encode("utf-8", "replace")) % (rule.buckets - 1)
    return numbers


def _ngrams(text: str, rule: TextInput) -> Iterator[str]:
    words = text.casefold().split()
    for n in rule.words:
        for start in range(len(words) - n + 1):
            yield "w" + " ".join(words[start : start + n])
    letters = f" {' '.join(words)} "
    for n in rule.characters:
        for start in range(len(letters) - n + 1):
            yield "c" + letters[start : start + n]
