"""Images in one size and mode, each channel normalised, decoded from untrusted bytes."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from api_schemas.preprocessing import CHANNELS, ImageInput
from common.array_types import Float32s
from common.time_budget import check_time
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput

_START_OF_SCAN = b"\xff\xda"
# the formats people have; the rarer decoders of Pillow are attack surface without use
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing):
    """Images, to ``(pixel / 255 - mean) / std`` per channel; training data is stored as uint8 pixels."""

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
        """Mean and deviation of each channel."""
        mean, std = np.asarray([self.rule.mean, self.rule.std], np.float32)[..., None, None]
        return mean, std

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
        return pixels[None] if self.rule.mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def decode(self, image: RawInput, number: int, limits: InputLimits) -> Image.Image:
        """An image, its file's bytes or its base64 text as an image; raises RefusedInput as ``prepare``."""
        if isinstance(image, str):
            image = _decode_base64(image, limits, number)
        if isinstance(image, bytes):
            image = _decode_image(image, limits, number)
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
    size = (rule.width, rule.height)
    if image.size == size:
        return image
    if rule.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if rule.resize == "pad":
        colour = rule.fill if rule.mode == "L" else (rule.fill,) * 3
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=colour)
    return image.resize(size, Image.Resampling.BILINEAR)


def _decode_image(content: bytes, limits: InputLimits, number: int) -> Image.Image:
    """Decode an image; its size is checked from the header, before any pixel is decoded.

    Raises:
        RefusedInput: too large, of another format, or broken.
    """
    refuse = partial(RefusedInput, number)
    if len(content) > limits.image_bytes:
        raise refuse(f"the image has {len(content)} bytes, at most {limits.image_bytes} are taken.")
    try:
        with warnings.catch_warnings():
            # Pillow's own pixel limit is a warning first; ours is checked below and is lower
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > limits.image_pixels:
                raise refuse(
                    f"the image has {width} x {height} pixels, at most {limits.image_pixels} are taken: "
                    "shrink it first."
                )
            if max(width, height) > limits.image_side:
                raise refuse(
                    f"the image has {width} x {height} pixels, at most {limits.image_side} are taken for a "
                    "side: shrink it first."
                )
            if image.format == "JPEG" and content.count(_START_OF_SCAN) > limits.image_scans:
                raise refuse(
                    f"the image is a JPEG of over {limits.image_scans} scans, each of which takes as long as "
                    "a whole image: save it again."
                )
            image.load()
    except UnidentifiedImageError:
        raise refuse(f"this is not an image; {', '.join(FORMATS)} are taken.") from None
    except Image.DecompressionBombError:
        raise refuse(f"the image has more than {limits.image_pixels} pixels: shrink it first.") from None
    except RefusedInput:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise refuse(f"the image is broken ({type(error).__name__}).") from None
    return image


def _decode_base64(text: str, limits: InputLimits, number: int) -> bytes:
    """Decode ``data:image/...;base64,...`` or bare base64; raises RefusedInput as ``_decode_image``."""
    encoded, refuse = text, partial(RefusedInput, number)
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise refuse("a data URI must read data:image/<type>;base64,<data>.")
    if len(encoded) > limits.image_bytes * 4 // 3 + 4:
        raise refuse(f"the image has over {limits.image_bytes} bytes, which is the most that is taken.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("this is not a base64 data URI of an image.") from None
