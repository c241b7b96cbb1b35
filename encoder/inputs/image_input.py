"""Images in one size and mode, each channel normalised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from api_schemas.preprocessing import CHANNELS, ImageInput
from common.array_types import Float32s
from common.time_budget import check_time
from encoder.inputs.data_uri import decode_data_uri
from encoder.inputs.image_decoder import decode_image
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput

MAX_RATIO = 16  # of the sides of an image that is resized by its shorter one


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing):
    """Images, to ``(value - mean) / std`` per channel; training data is stored as uint8 pixels."""

    rule: ImageInput
    kind = "image"
    layout = "map"
    takes = "images, as base64 data URIs"
    is_picture = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return CHANNELS[self.rule.mode], self.rule.height, self.rule.width

    @property
    def normalisation(self) -> tuple[Float32s, Float32s]:
        """Mean and deviation of each channel, of pixels that are brought to 0 to 1."""
        low, high = self.rule.value_range
        mean, std = np.asarray([self.rule.mean, self.rule.std])[..., None, None]
        return ((mean - low) / (high - low)).astype(np.float32), (std / (high - low)).astype(np.float32)

    def prepare(self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = LIMITS) -> Float32s:
        """Images, files' bytes or base64 texts to float32 [n, channels, height, width]."""
        pixels = []
        for number, image in enumerate(inputs, first):
            check_time()
            pixels.append(self.compute_pixels(self.decode(image, number, limits), number))
        return self.normalise(np.stack(pixels))

    def compute_pixels(self, image: Image.Image, number: int = 0) -> NDArray[np.uint8]:
        """An image in the rule's mode and size, not yet normalised: uint8 [channels, height, width].

        Args:
            number: the image's number in error messages.

        Raises:
            RefusedInput: pixels of 32 bits, or an orientation or colours that Pillow cannot read.
        """
        try:
            fitted = _fit_size(convert_mode(image, self.rule.mode, self.rule.fill, number), self.rule)
        except (RefusedInput, MemoryError):
            raise
        except Exception as error:  # Pillow raises whatever it likes on broken metadata and rare colours
            reason = f"the image's orientation or colours cannot be read ({type(error).__name__})."
            raise RefusedInput(number, reason) from None
        pixels = np.asarray(fitted, dtype=np.uint8)
        if self.rule.mode == "L":
            return pixels[None]
        if self.rule.order == "BGR":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def decode(self, image: RawInput, number: int, limits: InputLimits) -> Image.Image:
        """An image, its file's bytes or its base64 text as an image; raises RefusedInput as ``prepare``."""
        if isinstance(image, str):
            image = decode_data_uri(image, "an image", "image", limits.image_bytes, number)
        if isinstance(image, bytes):
            image = decode_image(image, limits, number)
        if not isinstance(image, Image.Image):
            raise self._build_refusal(number)
        return image


def convert_mode(image: Image.Image, mode: str, fill: int, number: int) -> Image.Image:
    """An image upright, of 8 bits, opaque over the grey level ``fill``, in the mode "L" or "RGB"."""
    # 16-bit grey has a mode of its own, but for some formats
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not is_16_bit:
        raise RefusedInput(
            number,
            f"the image's pixels are 32-bit or signed numbers (mode {image.mode}), whose white "
            "level is unknown: save it with 8 or 16 bits.",
        )
    upright = ImageOps.exif_transpose(image)
    if is_16_bit:
        # Pillow's own conversion would clip at 255
        deep = np.asarray(upright, dtype=np.float64)
        upright = Image.fromarray(np.clip(deep / 257.0, 0, 255).round().astype(np.uint8))
    if upright.has_transparency_data:
        opaque = Image.new("RGBA", upright.size, (fill, fill, fill, 255))
        opaque.alpha_composite(upright.convert("RGBA"))
        upright = opaque
    if upright.mode == "LAB":  # which Pillow converts to RGB alone
        upright = upright.convert("RGB")
    return upright.convert(mode)


def _fit_size(image: Image.Image, rule: ImageInput) -> Image.Image:
    size, resample = (rule.width, rule.height), Image.Resampling[rule.interpolation.upper()]
    if image.size == size and rule.short_side is None:
        return image
    if rule.resize == "crop":
        if rule.short_side is not None:
            return _crop_centre(image, size, rule.short_side, resample)
        return ImageOps.fit(image, size, resample)
    if rule.resize == "pad":
        colour = rule.fill if rule.mode == "L" else (rule.fill,) * 3
        return ImageOps.pad(image, size, resample, color=colour)
    return image.resize(size, resample)


def _crop_centre(
    image: Image.Image, size: tuple[int, int], short_side: int, resample: Image.Resampling
) -> Image.Image:
    """The centre of an image whose shorter side was brought to ``short_side``, in torchvision's rounding.

    An image that is longer than ``MAX_RATIO`` times its shorter side is cut to that first: what is cut away
    lies outside the centre, and the resized image is bounded.
    """
    shorter = min(image.size)
    ends = [max(0, (side - shorter * MAX_RATIO) // 2) for side in image.size]
    if any(ends):
        image = image.crop((ends[0], ends[1], image.width - ends[0], image.height - ends[1]))
    width, height = (
        short_side if side == shorter else int(short_side * side / shorter) for side in image.size
    )
    resized = image if image.size == (width, height) else image.resize((width, height), resample)
    left, top = round((width - size[0]) / 2), round((height - size[1]) / 2)
    return resized.crop((left, top, left + size[0], top + size[1]))
