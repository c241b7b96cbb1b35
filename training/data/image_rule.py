"""The default preprocessing of images: size, mode and normalisation, fitted on training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from api_schemas.preprocessing import ImageInput
from common.errors import InputError
from encoder.inputs.image_input import ImagePreprocessing
from training.data.image_files import ImageFile

MAX_SIDE = 64  # unless the configuration names a size: what two CPU cores train on in minutes
SAMPLE_SIZE = 256
MIN_DEVIATION = 1e-3
T = TypeVar("T")


@dataclass(frozen=True)
class _Traits:
    """Of an image: its longer side in pixels, whether it is square, and whether it has no colour."""

    side: int
    is_square: bool
    is_grey: bool


def fit_image_rule(files: Sequence[ImageFile], size: int | None, colour: str) -> ImageInput:
    """Preprocessing rule of images, fitted on the training files.

    Size: the median side, capped at 64. Mode: grey unless any sampled image has colour. Where most of
    the border has one grey level (paper), that level becomes 0, so that shifting in zeros is paper.

    Raises:
        InputError: every image of the sample is broken.
    """
    files = files[:: max(1, len(files) // SAMPLE_SIZE)]
    # each is decoded twice: all of them at once would not fit into memory
    sample = _read_each(files, _read_traits)
    side = size or min(MAX_SIDE, round(float(np.median([traits.side for traits in sample]))))
    is_grey = colour == "grey" or (colour == "auto" and all(traits.is_grey for traits in sample))
    channels = 1 if is_grey else 3
    rule = ImageInput(
        mode="L" if is_grey else "RGB",
        height=side,
        width=side,
        resize="stretch" if all(traits.is_square for traits in sample) else "pad",
        mean=[0.0] * channels,
        std=[1.0] * channels,
    )
    preprocessing = ImagePreprocessing(rule)
    return fit_normalisation(rule, np.stack(_read_each(files, lambda file: file.read_pixels(preprocessing))))


def fit_normalisation(rule: ImageInput, pixels: NDArray[np.uint8]) -> ImageInput:
    """The rule with mean and deviation of uint8 [n, channels, h, w], rounded to six places."""
    scaled = pixels.astype(np.float64) / 255
    border = np.concatenate([scaled[..., 0, :], scaled[..., -1, :], scaled[..., 0], scaled[..., -1]], axis=-1)
    middle = np.median(border, axis=(0, 2))
    is_paper = (np.abs(border - middle[:, None]) < 1e-9).mean() > 0.5
    mean = middle if is_paper else scaled.mean(axis=(0, 2, 3))
    deviations = np.sqrt(((scaled - mean[:, None, None]) ** 2).mean(axis=(0, 2, 3)))
    std = np.maximum(deviations, MIN_DEVIATION)
    return rule.model_copy(
        update={"mean": [round(float(m), 6) for m in mean], "std": [round(float(s), 6) for s in std]}
    )


def _read_traits(file: ImageFile) -> _Traits:
    with file.name_errors():
        image = file.open()
        return _Traits(max(image.size), image.width == image.height, _is_grey(image))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
        return True
    channels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    return bool((channels.max(axis=2) - channels.min(axis=2)).max() <= 8)


def _read_each(files: Sequence[ImageFile], read: Callable[[ImageFile], T]) -> list[T]:
    """Result of ``read`` for each but the broken files; the full read decides whether those are an error."""
    results: list[T] = []
    refusals: list[InputError] = []
    for file in files:
        try:
            results.append(read(file))
        except InputError as refusal:
            refusals.append(refusal)
    if not results:
        raise InputError(
            f"{files[0].name} and every other image that was tried is broken. {refusals[0]}"
        ) from None
    return results
