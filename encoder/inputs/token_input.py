"""Texts as the tokens of the tokenizer that a language model was trained with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from api_schemas.manifest import TOKENIZER_FILE
from api_schemas.preprocessing import TokenInput
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import BundleError, MissingExtra
from encoder.inputs.preprocessing import Layout
from encoder.inputs.text_input import TextPreprocessing


class Tokenizer:
    """A ``tokenizer.json`` as Hugging Face's ``tokenizers`` writes it.

    Attributes:
        content: the file's bytes. sha256: their hash, hexadecimal.
    """

    def __init__(self, content: bytes) -> None:
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise MissingExtra("a text model with a tokenizer", "serve") from error
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def open(cls, path: Path, sha256: str | None = None) -> Tokenizer:
        """Read the file; raises BundleError when it is missing, no tokenizer, or not the one expected."""
        try:
            tokenizer = cls(path.read_bytes())
        except MissingExtra:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise BundleError(f"{path} cannot be read as a tokenizer: {error}.") from None
        if sha256 is not None and tokenizer.sha256 != sha256:
            raise BundleError(f"{path} is not the tokenizer that this model was trained with.")
        return tokenizer

    def count(self, text: str) -> int:
        """The number of tokens of a text, the special ones included."""
        return len(self._tokenizer.encode(text).ids)

    def compute_numbers(self, text: str, length: int) -> Float32s:
        """Token numbers plus 1, zeros at the end: float32 [length]; a longer text loses its end."""
        encoding = self._tokenizer.encode(text)
        encoding.truncate(length)
        numbers = np.zeros(length, dtype=np.float32)
        numbers[: len(encoding.ids)] = np.asarray(encoding.ids) + 1
        return numbers


@dataclass(frozen=True)
class TokenPreprocessing(TextPreprocessing):
    """Token numbers of texts; ``tokenizer`` is None only where no text is prepared."""

    rule: TokenInput
    tokenizer: Tokenizer | None = None
    layout: ClassVar[Layout] = "tokens"

    @classmethod
    def open(cls, rule: Any, folder: Path) -> Self:
        """With the tokenizer beside the file; raises BundleError when it is missing or another."""
        return cls(rule, Tokenizer.open(folder / TOKENIZER_FILE, rule.tokenizer_sha256))

    def save(self, path: Path) -> None:
        """Write the rule and the tokenizer beside it."""
        super().save(path)
        if self.tokenizer is not None:
            write_atomically(path.with_name(TOKENIZER_FILE), self.tokenizer.content)

    def draw_samples(self, n: int) -> Float32s:
        """Numbers that every vocabulary has, in texts of every length."""
        length = self.rule.length
        numbers = np.random.default_rng(0).integers(1, 100, (n, length))
        is_inside = np.arange(length) < 1 + np.arange(n)[:, None] % length
        return np.where(is_inside, numbers, 0).astype(np.float32)

    def compute_numbers(self, text: str) -> Float32s:
        """Token numbers plus 1: float32 [length]."""
        assert self.tokenizer is not None, "a stand-in has no tokenizer"
        return self.tokenizer.compute_numbers(text, self.rule.length)
