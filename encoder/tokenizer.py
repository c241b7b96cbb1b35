"""Text to token numbers with the tokenizer that a language model was trained with; no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from common.array_types import Float32s
from common.errors import BundleError, MissingExtra

TOKENIZER_FILE = "tokenizer.json"


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
            found = cls(path.read_bytes())
        except MissingExtra:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise BundleError(f"{path} cannot be read as a tokenizer: {error}.") from None
        if sha256 is not None and found.sha256 != sha256:
            raise BundleError(f"{path} is not the tokenizer that this model was trained with.")
        return found

    def count(self, text: str) -> int:
        """How many tokens a text has, the special ones included."""
        return len(self._tokenizer.encode(text).ids)

    def numbers(self, text: str, length: int) -> Float32s:
        """Token numbers plus 1, zeros at the end: float32 [length]; a longer text loses its end."""
        encoding = self._tokenizer.encode(text)
        encoding.truncate(length)
        numbers = np.zeros(length, dtype=np.float32)
        numbers[: len(encoding.ids)] = np.asarray(encoding.ids) + 1
        return numbers
