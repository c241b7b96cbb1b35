"""``data.kind: builtin``: images that come with installed packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api_schemas.preprocessing import ImageInput
from common.progress import Track
from encoder.inputs.image_input import ImagePreprocessing
from training.data.glyphs import draw_glyphs
from training.data.image_rule import fit_normalisation
from training.data.items import Items
from training.data.kinds.images import Images

Drawn = tuple[NDArray[np.uint8], list[str], list[str]]


def load_digits() -> Drawn:
    """scikit-learn's 1,797 handwritten digits: uint8 [n, 8, 8], dark on white; labels; ids."""
    from sklearn import datasets

    digits = datasets.load_digits()
    pixels = (255 - np.round(digits.images * (255 / 16))).astype(np.uint8)
    return pixels, [str(label) for label in digits.target], [f"digit-{row:04d}" for row in range(len(pixels))]


BUILTIN_SETS: dict[str, Callable[[], Drawn]] = {"glyphs": draw_glyphs, "digits": load_digits}


class Builtin(Images):
    """Square grey images in memory: raw inputs are uint8 [n, 1, side, side]; files are read as images are."""

    @property
    def source(self) -> str:
        return f"builtin: {self.data.builtin}"

    def read_all(self) -> Items:
        pixels, labels, ids = BUILTIN_SETS[str(self.data.builtin)]()
        return Items(pixels[:, None], np.array(labels), np.array(ids))

    def fit_preprocessing(self, train: Items) -> ImagePreprocessing:
        """The size as it is, statistics of all training images."""
        height, width = train.inputs.shape[2:]
        rule = ImageInput(mode="L", height=height, width=width, mean=[0.0], std=[1.0])
        return ImagePreprocessing(fit_normalisation(rule, train.inputs))

    def store(
        self,
        parts: Mapping[str, Items],
        paths: Sequence[Path],
        preprocessing: ImagePreprocessing,
        track: Track,
    ) -> dict[str, Items]:
        """The set is in memory; files may be more."""
        if all(raw.inputs.dtype == np.uint8 for raw in parts.values()):
            return dict(parts)
        return super().store(parts, paths, preprocessing, track)

    def prepare(self, raw: Items, preprocessing: ImagePreprocessing, track: Track) -> Items:
        """Images of the set are stored as they are; files are decoded."""
        return raw if raw.inputs.dtype == np.uint8 else super().prepare(raw, preprocessing, track)
