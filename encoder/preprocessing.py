"""Raw input to the network's input: numpy and Pillow alone, so that training and serving share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from api_schemas.preprocessing import CHANNELS, AnyInput, ImageInput, PreprocessingDocument
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import InputError
from encoder.ngram_hashing import ngram_numbers
from encoder.refused_input import RefusedInput
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer

PREPROCESSING_FILE = "preprocessing.json"


@dataclass(frozen=True)
class Preprocessing:
    """One model's rule from raw input to array; ``Preprocessing.load(folder / "preprocessing.json")``."""

    input: AnyInput
    tokenizer: Tokenizer | None = None

    @classmethod
    def load(cls, path: Path) -> Preprocessing:
        """Read and check the file, and the tokenizer beside it where the rule has one.

        Raises:
            InputError: names the file and the key.
            BundleError: the tokenizer is missing or another.
        """
        rule = PreprocessingDocument.load(path).input
        if rule.kind != "tokens":
            return cls(rule)
        return cls(rule, Tokenizer.open(path.with_name(TOKENIZER_FILE), rule.tokenizer_sha256))

    def save(self, path: Path) -> None:
        """Write the file, its bytes depend on the rule alone; and the tokenizer beside it."""
        PreprocessingDocument(input=self.input).save(path)
        if self.tokenizer is not None:
            write_atomically(path.with_name(TOKENIZER_FILE), self.tokenizer.content)

    @property
    def kind(self) -> Literal["image", "table", "text", "vector"]:
        """What the raw inputs are."""
        return "text" if self.input.kind == "tokens" else self.input.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: (channels, height, width), (columns,) or (n-grams,)."""
        rule = self.input
        if isinstance(rule, ImageInput):
            return CHANNELS[rule.mode], rule.height, rule.width
        if rule.kind == "text" or rule.kind == "tokens":
            return (rule.length,)
        return (rule.dim,) if rule.kind == "vector" else (len(rule.columns),)

    def image_pixels(self, image: Image.Image, number: int = 0) -> NDArray[np.uint8]:
        """An image in the rule's mode and size, not yet normalised: uint8 [channels, height, width].

        Args:
            number: what error messages call it by.

        Raises:
            RefusedInput: pixels of 32 bits, or an orientation or colours that Pillow cannot read.
        """
        rule = self._image_rule()
        try:
            fitted = _fit(_in_mode(image, rule, number), rule)
        except (RefusedInput, MemoryError):
            raise
        except Exception as error:  # Pillow raises whatever it likes on broken metadata and rare colours
            reason = f"the image's orientation or colours cannot be read ({type(error).__name__})."
            raise RefusedInput(number, reason) from None
        pixels = np.asarray(fitted, dtype=np.uint8)
        return pixels[None] if rule.mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def normalised(self, pixels: NDArray[np.uint8]) -> Float32s:
        """``(pixel / 255 - mean) / std``: float32 of the shape of ``pixels`` [..., channels, h, w]."""
        rule = self._image_rule()
        mean = np.asarray(rule.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(rule.std, dtype=np.float32)[:, None, None]
        scaled: Float32s = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return scaled

    def image_array(self, image: Image.Image, number: int = 0) -> Float32s:
        """An image as the network takes it: float32 [channels, height, width]; raises as `image_pixels`."""
        return self.normalised(self.image_pixels(image, number))

    def text_array(self, text: str) -> Float32s:
        """A text as the network takes it: float32 [length], numbers that float32 holds exactly."""
        rule = self.input
        if rule.kind == "tokens" and self.tokenizer is not None:
            return self.tokenizer.numbers(text, rule.length)
        if rule.kind != "text":
            raise InputError(f"This model takes {self.kind} inputs, not texts.")
        return ngram_numbers(text, rule)

    def rows_array(self, rows: ArrayLike | Sequence[Sequence[float]], first: int = 0) -> Float32s:
        """Table rows or vectors as the network takes them: float32 [n, columns].

        Args:
            rows: numbers [n, columns].
            first: the number of the first row in error messages.

        Raises:
            RefusedInput: a row of another length, NaN or infinity; names the row.
        """
        width = self.shape[0]
        try:
            values = np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 2 or values.shape[1] != width:
            number, found = _first_misfit(rows, width)
            raise RefusedInput(first + number, f"this model takes rows of {width} numbers, {found}.")
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise RefusedInput(first + int(broken[0]), "it has a value that is not finite.")
        if self.input.kind == "table":
            values = (values - np.asarray(self.input.means)) / np.asarray(self.input.stds)
        with np.errstate(over="ignore"):
            prepared = values.astype(np.float32)
        broken = np.flatnonzero(~np.isfinite(prepared).all(axis=1))
        if len(broken):
            raise RefusedInput(first + int(broken[0]), "it has a value that does not fit into float32.")
        return prepared

    def _image_rule(self) -> ImageInput:
        if not isinstance(self.input, ImageInput):
            raise InputError(f"This model takes {self.kind} inputs, not images.")
        return self.input


def _in_mode(image: Image.Image, rule: ImageInput, number: int) -> Image.Image:
    # 16-bit grey has a mode of its own, but for some formats
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not sixteen:
        raise RefusedInput(
            number,
            f"the image's pixels are 32-bit or signed numbers (mode {image.mode}), of which nobody knows "
            "what is white: save it with 8 or 16 bits.",
        )
    upright = ImageOps.exif_transpose(image)
    if sixteen:
        # Pillow's own conversion would clip at 255
        deep = np.asarray(upright, dtype=np.float64)
        upright = Image.fromarray(np.clip(deep / 257.0, 0, 255).round().astype(np.uint8))
    if upright.has_transparency_data:
        opaque = Image.new("RGBA", upright.size, (rule.fill, rule.fill, rule.fill, 255))
        opaque.alpha_composite(upright.convert("RGBA"))
        upright = opaque
    if upright.mode == "LAB":  # which Pillow converts to RGB alone
        upright = upright.convert("RGB")
    return upright.convert(rule.mode)


def _fit(image: Image.Image, rule: ImageInput) -> Image.Image:
    size = (rule.width, rule.height)
    if image.size == size:
        return image
    if rule.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if rule.resize == "pad":
        colour = rule.fill if rule.mode == "L" else (rule.fill,) * 3
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=colour)
    return image.resize(size, Image.Resampling.BILINEAR)


def _first_misfit(rows: ArrayLike | Sequence[Sequence[float]], width: int) -> tuple[int, str]:
    """Position and description of the first row that is not ``width`` numbers."""
    for number, row in enumerate(rows if isinstance(rows, Sequence | np.ndarray) else ()):
        if not isinstance(row, Sequence | np.ndarray) or isinstance(row, str):
            return number, f"found {type(row).__name__}"
        if len(row) != width:
            return number, f"found {len(row)} values"
        if not all(isinstance(value, int | float | np.number) for value in row):
            return number, "found something that is not a number"
    return 0, f"found an array of shape {np.shape(np.asarray(rows, dtype=object))}"
