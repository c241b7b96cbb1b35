"""Texts as hashed n-grams, or as the tokens that a language model was trained with."""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from api_schemas.manifest import TOKENIZER_FILE
from api_schemas.preprocessing import NetworkInterface, TextInput, TokenInput
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import BundleError, MissingExtra
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput


@dataclass(frozen=True)
class TextPreprocessing(Preprocessing):
    """Texts as ids from 1 in a row of fixed length, zeros at the end; float32 holds them exactly."""

    rule: TextInput | TokenInput
    kind = "text"
    takes = "texts that are not empty"
    is_continuous = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.rule.length,)

    def prepare(self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = LIMITS) -> Float32s:
        """Texts to float32 [n, length]."""
        rows = []
        for number, text in enumerate(inputs, first):
            if not isinstance(text, str) or not text.strip():
                raise self._build_refusal(number)
            rows.append(self.compute_ids(text))
        return np.stack(rows)

    def count_tokens(self, raw: RawInput) -> int:
        """The tokens or n-grams of a text, without what is cut off."""
        return int(np.count_nonzero(self.compute_ids(str(raw))))

    def compute_ids(self, text: str) -> Float32s:
        """The first ids of one text, then zeros: float32 [length]."""
        if self.rule.unicode_form is not None:
            text = unicodedata.normalize(self.rule.unicode_form, text)
        ids = np.fromiter(islice(self.list_ids(text), self.rule.length), np.float32)
        padded = np.zeros(self.rule.length, dtype=np.float32)
        padded[: len(ids)] = ids
        return padded

    @abstractmethod
    def list_ids(self, text: str) -> Iterable[int]:
        """The ids of one text, from 1, in its order."""


@dataclass(frozen=True)
class NgramPreprocessing(TextPreprocessing):
    """Ids of a text's distinct n-grams, of words first (Joulin et al. 2017, arXiv 1607.01759)."""

    rule: TextInput
    layout = "ngrams"

    @property
    def backbone_arguments(self) -> Mapping[str, int]:
        """The number of buckets, which is that of embeddings."""
        return {"buckets": self.rule.buckets}

    def draw_samples(self, n: int) -> Float32s:
        """Random n-grams, padding among them."""
        ids = np.random.default_rng(0).integers(0, self.rule.buckets, (n, self.rule.length))
        return ids.astype(np.float32)

    def list_ids(self, text: str) -> Iterable[int]:
        """Words are hashed with a mark of their own, so that the word "the" is not the three letters. CRC-32
        is the hash: equal on every machine, and in the standard library."""
        last = self.rule.buckets - 1
        for ngram in dict.fromkeys(_list_ngrams(text, self.rule)):
            yield 1 + zlib.crc32(ngram.encode("utf-8", "replace")) % last


def _list_ngrams(text: str, rule: TextInput) -> Iterator[str]:
    words = text.casefold().split()
    if rule.unicode_form is not None:  # which case folding may break up again
        words = [unicodedata.normalize(rule.unicode_form, word) for word in words]
    for n in rule.words:
        for start in range(len(words) - n + 1):
            yield "w" + " ".join(words[start : start + n])
    letters = f" {' '.join(words)} "
    for n in rule.characters:
        for start in range(len(letters) - n + 1):
            yield "c" + letters[start : start + n]


class Tokenizer:
    """A ``tokenizer.json`` as Hugging Face's ``tokenizers`` writes it.

    Args:
        special_tokens: whether texts get those that the tokenizer adds, such as [CLS].
        length: the most tokens of a text, cut before the special ones at its end; None leaves it whole.

    Attributes:
        content: the file's bytes. sha256: their hash, hexadecimal.
    """

    def __init__(self, content: bytes, special_tokens: bool = True, length: int | None = None) -> None:
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise MissingExtra("a text model with a tokenizer", "serve") from error
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        self._special_tokens = special_tokens
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if length is not None:
            self._tokenizer.enable_truncation(length)

    @classmethod
    def open(
        cls, path: Path, sha256: str | None = None, special_tokens: bool = True, length: int | None = None
    ) -> Tokenizer:
        """Read the file; raises BundleError when it is missing, no tokenizer, or not the one expected."""
        try:
            tokenizer = cls(path.read_bytes(), special_tokens, length)
        except MissingExtra:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise BundleError(f"{path} cannot be read as a tokenizer: {error}.") from None
        if sha256 is not None and tokenizer.sha256 != sha256:
            raise BundleError(f"{path} is not the tokenizer that this model was trained with.")
        return tokenizer

    @property
    def largest_id(self) -> int:
        """The last id of the vocabulary, added tokens included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=self._special_tokens).ids)


@dataclass(frozen=True)
class TokenPreprocessing(TextPreprocessing):
    """Token ids of texts; ``tokenizer`` is None only where no text is prepared."""

    rule: TokenInput
    tokenizer: Tokenizer | None = None
    layout = "tokens"
    files = (TOKENIZER_FILE,)

    @classmethod
    def open(cls, rule: Any, folder: Path) -> Self:
        """With the tokenizer beside the file; raises BundleError when it is missing or another."""
        length = rule.length if rule.keep_special else None
        path = folder / TOKENIZER_FILE
        return cls(rule, Tokenizer.open(path, rule.tokenizer_sha256, rule.special_tokens, length))

    def save(
        self, path: Path, network: NetworkInterface | None = None, query_output: str | None = None
    ) -> None:
        """Write the rule and the tokenizer beside it."""
        super().save(path, network, query_output)
        if self.tokenizer is not None:
            write_atomically(path.with_name(TOKENIZER_FILE), self.tokenizer.content)

    @property
    def backbone_arguments(self) -> Mapping[str, int]:
        """The number of tokens, which a table needs rows for; 0 in a placeholder."""
        return {"vocabulary": 0 if self.tokenizer is None else self.tokenizer.largest_id + 1}

    def draw_samples(self, n: int) -> Float32s:
        """Ids that every vocabulary has, in texts of every length."""
        length = self.rule.length
        most = 100 if self.tokenizer is None else min(100, self.tokenizer.largest_id + 2)
        ids = np.random.default_rng(0).integers(1, most, (n, length))
        is_inside = np.arange(length) < 1 + np.arange(n)[:, None] % length
        return np.where(is_inside, ids, 0).astype(np.float32)

    def list_ids(self, text: str) -> Iterable[int]:
        """Token ids plus 1; a text longer than ``length`` loses its end."""
        assert self.tokenizer is not None, "a placeholder has no tokenizer"
        return (token_id + 1 for token_id in self.tokenizer.encode(text))
