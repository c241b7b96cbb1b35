"""Images in one size and mode, each channel normalised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from api_schemas.preprocessing import CHANNELS, ImageInput, InputKind
from common.array_types import Float32s
from encoder.inputs.image_decoding import decode_base64_image, decode_image
from encoder.inputs.preprocessing import (
    DEFAULT_LIMITS,
    InputLimits,
    Layout,
    Normalisation,
    Preprocessing,
    RawInput,
)
from encoder.refused_input import RefusedInput


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing):
    """Images, to ``(pixel / 255 - mean) / std`` per channel; training data is stored as uint8 pixels."""

    rule: ImageInput
    kind: ClassVar[InputKind] = "image"
    layout: ClassVar[Layout] = "map"
    is_picture: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return CHANNELS[self.rule.mode], self.rule.height, self.rule.width

    @property
    def takes(self) -> str:
        """As requests carry them."""
        return "images, as base64 data URIs"

    @property
    def normalisation(self) -> Normalisation:
        """Mean and deviation of each channel."""
        mean, std = (
            np.asarray(values, np.float32)[:, None, None] for values in (self.rule.mean, self.rule.std)
        )
        return Normalisation(mean, std)

    def prepare(
        self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = DEFAULT_LIMITS
    ) -> Float32s:
        """Images, files' bytes or base64 texts to float32 [n, channels, height, width]."""
        return self.normalise(
            np.stack(
                [
                    self.compute_pixels(self._decode(image, number, limits), number)
                    for number, image in enumerate(inputs, first)
                ]
            )
        )

    def compute_pixels(self, image: Image.Image, number: int = 0) -> NDArray[np.uint8]:
        """An image in the rule's mode and size, not yet normalised: uint8 [channels, height, width].

        Args:
            number: the image's number in error messages.

        Raises:
            RefusedInput: pixels of 32 bits, or an orientation or colours that Pillow cannot read.
        """
        try:
            fitted = _fit_size(_convert_mode(image, self.rule, number), self.rule)
        except (RefusedInput, MemoryError):
            raise
        except Exception as error:  # Pillow raises whatever it likes on broken metadata and rare colours
            reason = f"the image's orientation or colours cannot be read ({type(error).__name__})."
            raise RefusedInput(number, reason) from None
        pixels = np.asarray(fitted, dtype=np.uint8)
        return pixels[None] if self.rule.mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _decode(self, image: RawInput, number: int, limits: InputLimits) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        if isinstance(image, bytes):
            return decode_image(image, limits, number)
        if isinstance(image, str):
            return decode_base64_image(image, limits, number)
        raise self._build_refusal(number)


def _convert_mode(image: Image.Image, rule: ImageInput, number: int) -> Image.Image:
    # 16-bit grey has a mode of its own, but for some formats
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not is_16_bit:
        raise RefusedInput(
            number,
            f"the image's pixels are 32-bit or signed numbers (mode {image.mode}), of which nobody knows "
            "what is white: save it with 8 or 16 bits.",
        )
    upright = ImageOps.exif_transpose(image)
    if is_16_bit:
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


def _fit_size(image: Image.Image, rule: ImageInput) -> Image.Image:
    size = (rule.width, rule.height)
    if image.size == size:
        return image
    if rule.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if rule.resize == "pad":
        colour = rule.fill if rule.mode == "L" else (rule.fill,) * 3
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=colour)
    return image.resize(size, Image.Resampling.BILINEAR)
