"""Thumbnails: a small picture of an image, or the beginning of a text, for people to look at."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from common.choices import LARGEST_THUMBNAIL, SMALLEST_THUMBNAIL
from encoder.inputs.audio_input import AudioPreprocessing
from encoder.inputs.image_decoder import decode_image
from encoder.inputs.image_input import ImagePreprocessing, convert_mode
from encoder.inputs.mel_spectrogram import compute_mel_spectrogram
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput

SMALLEST_SIDE, LARGEST_SIDE = SMALLEST_THUMBNAIL, LARGEST_THUMBNAIL
TEXT_CHARACTERS = 500
MIN_BYTES = 1024  # any picture may have as many
QUALITIES = (80, 50, 20)
WHITE = 255
DRAWN_SECONDS, DRAWN_DECIBELS = 10, 60.0  # of a recording
WEBP, TEXT = "image/webp", "text/plain; charset=utf-8"


def make_thumbnail(
    preprocessing: Preprocessing, raw: RawInput, side: int, limits: InputLimits = LIMITS, number: int = 0
) -> bytes | None:
    """WebP of an image or of a recording's spectrogram, UTF-8 of a text's first 500 characters, else None.

    A picture has at most ``side`` pixels on its longer side, is never larger than the original, and has at
    most ``max(1024, side * side)`` bytes. It is upright and opaque, and nothing but its pixels is kept: no
    EXIF, no place, no colour profile.

    Args:
        number: the input's number in error messages.

    Raises:
        RefusedInput: an image that is broken or too large.
    """
    if isinstance(preprocessing, ImagePreprocessing):
        return _shrink_decoded(preprocessing.decode(raw, number, limits), side, number)
    if isinstance(preprocessing, AudioPreprocessing):
        return shrink_image(_draw_spectrogram(preprocessing, raw, side, limits, number), side)
    if preprocessing.kind == "text" and isinstance(raw, str):
        return raw[:TEXT_CHARACTERS].encode("utf-8", "replace")
    return None


def make_picture(content: bytes, side: int, limits: InputLimits = LIMITS) -> bytes:
    """The thumbnail of an image file's bytes, where no encoder says what they are; see ``make_thumbnail``."""
    return _shrink_decoded(decode_image(content, limits, 0), side, 0)


def _draw_spectrogram(
    preprocessing: AudioPreprocessing, raw: RawInput, side: int, limits: InputLimits, number: int
) -> Image.Image:
    """Time to the right, frequency up, dark is loud; the loudest 60 decibels of the first seconds."""
    samples = preprocessing.decode(raw, number, limits)[: DRAWN_SECONDS * preprocessing.rule.sample_rate]
    rule = preprocessing.rule.model_copy(update={"log": "decibel"})
    levels = compute_mel_spectrogram(samples, rule)[::-1]
    darkness = np.clip((levels - levels.max() + DRAWN_DECIBELS) / DRAWN_DECIBELS, 0, 1)
    drawn = Image.fromarray((255 - 255 * darkness).astype(np.uint8))
    return drawn.resize((side, max(1, side // 2)), Image.Resampling.BOX)


def _shrink_decoded(image: Image.Image, side: int, number: int) -> bytes:
    try:
        return shrink_image(convert_mode(image, "RGB", WHITE, number), side)
    except (RefusedInput, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever it likes on broken metadata and rare colours
        reason = f"the image's orientation or colours cannot be read ({type(error).__name__})."
        raise RefusedInput(number, reason) from None


def shrink_image(image: Image.Image, side: int) -> bytes:
    """WebP of an upright image of 8 bits, at most ``side`` pixels long and ``max(1024, side^2)`` bytes."""
    most = max(MIN_BYTES, side * side)
    while True:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        pixels = Image.fromarray(np.asarray(small))  # without what else the file said
        for quality in QUALITIES:
            file = io.BytesIO()
            pixels.save(file, "WEBP", quality=quality, method=4)
            if file.tell() <= most:
                return file.getvalue()
        side //= 2


def get_media_type(thumbnail: bytes) -> str:
    """The media type of a thumbnail, by its first bytes."""
    is_picture = thumbnail[:4] == b"RIFF" and thumbnail[8:12] == b"WEBP"
    return WEBP if is_picture else TEXT
