"""Texts without a vocabulary: hashed n-grams (Joulin et al. 2017, arXiv 1607.01759, section 3)."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from api_schemas.preprocessing import InputKind, TextInput, TokenInput
from common.array_types import Float32s
from encoder.inputs.preprocessing import DEFAULT_LIMITS, InputLimits, Layout, Preprocessing, RawInput


@dataclass(frozen=True)
class TextPreprocessing(Preprocessing):
    """Texts as numbers from 1 in a row of fixed length, zeros at the end; float32 holds them exactly."""

    rule: TextInput | TokenInput
    kind: ClassVar[InputKind] = "text"
    is_continuous: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.rule.length,)

    @property
    def takes(self) -> str:
        """Text that holds something."""
        return "texts that are not empty"

    def prepare(
        self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = DEFAULT_LIMITS
    ) -> Float32s:
        """Texts to float32 [n, length]."""
        rows = []
        for number, text in enumerate(inputs, first):
            if not isinstance(text, str) or not text.strip():
                raise self._build_refusal(number)
            rows.append(self.compute_numbers(text))
        return np.stack(rows)

    @abstractmethod
    def compute_numbers(self, text: str) -> Float32s:
        """The numbers of one text: float32 [length]."""


@dataclass(frozen=True)
class NgramPreprocessing(TextPreprocessing):
    """Numbers of a text's distinct n-grams, those of words first."""

    rule: TextInput
    layout: ClassVar[Layout] = "ngrams"

    @property
    def backbone_arguments(self) -> Mapping[str, int]:
        """The number of buckets, which is that of embeddings."""
        return {"buckets": self.rule.buckets}

    def draw_samples(self, n: int) -> Float32s:
        """Any n-grams, some of them none."""
        numbers = np.random.default_rng(0).integers(0, self.rule.buckets, (n, self.rule.length))
        return numbers.astype(np.float32)

    def compute_numbers(self, text: str) -> Float32s:
        """Words are hashed with a mark of their own, so that the word "the" is not the three letters. CRC-32
        is the hash: equal on every machine, and in the standard library."""
        rule = self.rule
        numbers = np.zeros(rule.length, dtype=np.float32)
        distinct = dict.fromkeys(_list_ngrams(text, rule))
        for position, ngram in zip(range(rule.length), distinct, strict=False):
            numbers[position] = 1 + zlib.crc32(ngram.encode("utf-8", "replace")) % (rule.buckets - 1)
        return numbers


def _list_ngrams(text: str, rule: TextInput) -> Iterator[str]:
    words = text.casefold().split()
    for n in rule.words:
        for start in range(len(words) - n + 1):
            yield "w" + " ".join(words[start : start + n])
    letters = f" {' '.join(words)} "
    for n in rule.characters:
        for start in range(len(letters) - n + 1):
            yield "c" + letters[start : start + n]
