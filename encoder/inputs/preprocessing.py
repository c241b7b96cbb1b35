"""Preprocessing of one input kind: what raw inputs are, and how they become the network's input array."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from api_schemas.preprocessing import AnyInput, InputKind, NetworkInterface, PreprocessingDocument
from common.array_types import Float32s
from common.errors import InputError

RawInput = str | bytes | Image.Image | Sequence[float] | NDArray[Any]
Layout = Literal["map", "row", "ngrams", "tokens"]


@dataclass(frozen=True)
class InputLimits:
    """The largest raw inputs that are decoded; larger ones are refused."""

    image_bytes: int = 16 << 20
    image_pixels: int = 32_000_000
    image_side: int = 16_384
    image_scans: int = 32
    audio_bytes: int = 16 << 20
    audio_seconds: float = 600.0


LIMITS = InputLimits()


class RefusedInput(InputError):
    """An input that is not taken: ``number`` says which of those given together, ``reason`` is a sentence."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"Input {number}: {reason}")
        self.number = number
        self.reason = reason


@dataclass(frozen=True)
class Preprocessing(ABC):
    """The rule from raw input to network input of one model: the same at training and serving.

    Attributes:
        rule: what ``preprocessing.json`` holds.
        kind: what the raw inputs are.
        layout: of the prepared array: a feature ``map`` [channels, height, width], a ``row`` of numbers, or
            the ids of a text's ``ngrams`` or ``tokens``; a backbone says which it takes.
        takes: what the raw inputs are in error messages; ``{0}`` stands for the first side of the shape.
        is_picture: whether rotations and flips of an input make sense: augmentation and test-time views.
        is_continuous: whether values between two inputs mean something, so that mixup may mix them.
        has_pieces: whether an input is prepared as several pieces, each of which has the shape, in an axis of
            their own after the first; those that an input lacks are NaN. Its vector is the mean of theirs.
        files: names of the files that it needs beside ``preprocessing.json``.
        is_unit_scaled: whether a network scales its input to unit length first, so that precomputed vectors
            of any length give the same embedding.
    """

    rule: AnyInput

    kind: ClassVar[InputKind]
    layout: ClassVar[Layout]
    takes: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()
    has_pieces: ClassVar[bool] = False
    is_picture: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = True
    is_unit_scaled: ClassVar[bool] = False

    @classmethod
    def open(cls, rule: Any, folder: Path) -> Self:
        """Built from a rule of this kind and what lies in the folder of its file."""
        return cls(rule)

    def save(
        self, path: Path, network: NetworkInterface | None = None, query_output: str | None = None
    ) -> None:
        """Write ``preprocessing.json``, whose bytes depend on its content alone, and what belongs beside it.

        Args:
            network: how a network that was made elsewhere is fed and read.
            query_output: the network's output for queries, where it has a second one.
        """
        PreprocessingDocument(input=self.rule, network=network, query_output=query_output).save(path)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input."""

    @property
    def most_numbers(self) -> int:
        """How many numbers one prepared input has at most."""
        return math.prod(self.shape)

    def count_tokens(self, raw: RawInput) -> int:
        """What the network reads of one input: the tokens of a text, or the one image or row."""
        return 1

    def describe_shape(self) -> str:
        """The shape of one prepared input, in words."""
        return " x ".join(map(str, self.shape))

    @abstractmethod
    def prepare(self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = LIMITS) -> Float32s:
        """Raw inputs as the network takes them: float32 [n, *shape], or with pieces [n, most pieces, *shape].

        Args:
            first: the number of the first input in error messages.

        Raises:
            RefusedInput: an input of another kind, broken or too large; names its number.
        """

    @property
    def normalisation(self) -> tuple[Float32s, Float32s] | None:
        """Mean and deviation, float32 [channels, 1, 1], where training data is stored as uint8; else None."""
        return None

    def normalise(self, stored: NDArray[Any]) -> Float32s:
        """Training data as stored, [n, *shape], as the network takes it: float32 of that shape."""
        if self.normalisation is None:
            return stored
        mean, std = self.normalisation
        return np.asarray((stored.astype(np.float32) / np.float32(255) - mean) / std, np.float32)

    @property
    def backbone_arguments(self) -> Mapping[str, int]:
        """Arguments of a backbone for this input besides the input's shape."""
        return {}

    def draw_samples(self, n: int) -> Float32s:
        """Random prepared inputs, float32 [n, *shape], equal on every call: to check an export with."""
        return np.random.default_rng(0).standard_normal((n, *self.shape), dtype=np.float32)

    def _build_refusal(self, number: int, actual: str = "") -> RefusedInput:
        takes = self.takes.format(*self.shape) + (actual and f", found {actual}")
        return RefusedInput(number, f"this model takes {takes}.")
