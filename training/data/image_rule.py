"""The default preprocessing of images: size, mode and normalisation, fitted on training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from api_schemas.data_config import DataConfig
from api_schemas.preprocessing import ImageInput
from api_schemas.wrap_config import ImagePreprocessingConfig
from common.errors import ConfigError
from encoder.inputs.image_input import ImagePreprocessing
from encoder.wrapping.fit_network import build_image_rule
from encoder.wrapping.preprocessing_file import parse_preprocessing, read_preprocessing
from encoder.wrapping.presets import SIZES
from training.data.image_files import ImageFile
from training.data.labelled_files import read_each

MAX_SIDE = 64  # unless the configuration names a size: what two CPU cores train on in minutes
SAMPLE_SIZE = 256
MIN_DEVIATION = 1e-3


@dataclass(frozen=True)
class _Traits:
    """Of an image: its width and height in pixels, and whether it has no colour."""

    width: int
    height: int
    is_grey: bool

    def has_shape(self, height: int, width: int) -> bool:
        """Whether it is as wide for its height as that, to a pixel."""
        return abs(self.width * height - self.height * width) < max(height, width)


def fit_image_rule(files: Sequence[ImageFile], data: DataConfig) -> ImageInput:
    """Preprocessing rule of images, fitted on the training files.

    Size: the median of the longer sides, capped at 64. Mode: grey unless any sampled image has colour. Where
    most of the border has one grey level (paper), that level becomes 0, so that shifting in zeros is paper.

    Raises:
        InputError: every image of the sample is broken.
    """
    files = files[:: max(1, len(files) // SAMPLE_SIZE)]
    # each is decoded twice: all of them at once would not fit into memory
    sample = read_each(files, _read_traits, "image")
    side = min(MAX_SIDE, round(float(np.median([max(traits.width, traits.height) for traits in sample]))))
    height, width = data.image_shape or (side, side)
    is_grey = data.colour == "grey" or (data.colour == "auto" and all(traits.is_grey for traits in sample))
    fits = all(traits.has_shape(height, width) for traits in sample)
    channels = 1 if is_grey else 3
    rule = ImageInput(
        mode="L" if is_grey else "RGB",
        height=height,
        width=width,
        resize=("stretch" if fits else "pad") if data.resize == "auto" else data.resize,
        mean=[0.0] * channels,
        std=[1.0] * channels,
    )
    preprocessing = ImagePreprocessing(rule)
    return fit_normalisation(
        rule, np.stack(read_each(files, lambda file: file.read_pixels(preprocessing), "image"))
    )


def read_image_rule(given: str | Mapping[str, Any], shape: tuple[int, int] | None) -> ImageInput:
    """The rule that ``data.preprocessing`` says: a preset, a YAML file or keys.

    Args:
        shape: height and width of ``data.image_size``, where the preprocessing has none of its own.

    Raises:
        InputError: the file cannot be read. ConfigError: an unknown preset, key or value, or none of images.
    """
    keys, source = read_preprocessing(given)
    config = parse_preprocessing(keys, source)
    if not isinstance(config, ImagePreprocessingConfig):
        raise ConfigError(f"data.preprocessing: {source} is for {config.kind}s, the data are images.")
    size = config.size or shape or SIZES.get(config.preset)
    if size is None:
        raise ConfigError("data.preprocessing: say the size of images, size: 224, or [height, width].")
    height, width = (size, size) if isinstance(size, int) else size
    return build_image_rule(config, "data.preprocessing", height, width)


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
        return _Traits(image.width, image.height, _is_grey(image))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;"):
        return True
    channels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    return bool((channels.max(axis=2) - channels.min(axis=2)).max() <= 8)
