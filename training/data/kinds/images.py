"""``data.kind: images``: image files in class folders, zips of those, or lists of paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from api_schemas.preprocessing import ImageInput
from common.array_types import Float32s
from common.errors import InputError
from common.progress import Track
from embeddings.embedding_set import convert_columns
from encoder.inputs.image_input import ImagePreprocessing
from training.data.image_files import ImageFile, find_images
from training.data.image_rule import fit_image_rule
from training.data.items import Items
from training.data.kinds.data_kind import DataKind
from training.data.near_duplicates import NearDuplicates, compute_thumbnails, find_near_duplicates

USUAL_SIDE = 28


class Images(DataKind[ImagePreprocessing]):
    """Raw inputs are ``ImageFile`` objects [n]; they are stored as uint8 [n, channels, height, width]."""

    noun = "image"

    def read(self, paths: Sequence[Path], preprocessing: ImagePreprocessing | None = None) -> Items:
        """Ids are the files' names, columns the folder above the class's and those that all lists have."""
        files = find_images(
            paths, self.data.path_column, self.data.label_column, self.data.encoding, self.say
        )
        shared = set(files[0].columns).intersection(*(file.columns for file in files))
        inputs = np.empty(len(files), dtype=object)
        inputs[:] = files
        times = {"file_time": np.array([file.read_time() for file in files])} if self.data.file_times else {}
        return Items(
            inputs,
            np.array([file.label for file in files]),
            np.array([file.name for file in files]),
            {
                "folder": np.array([file.folder for file in files]),
                **times,
                **convert_columns({name: [file.columns[name] for file in files] for name in sorted(shared)}),
            },
        )

    def fit_preprocessing(self, train: Items) -> ImagePreprocessing:
        """Size, mode and statistics of a sample of the training images."""
        files = train.inputs.tolist()
        return ImagePreprocessing(fit_image_rule(files, self.data.image_size, self.data.colour))

    def build_placeholder(self) -> ImagePreprocessing:
        side = self.data.image_size or USUAL_SIDE
        return ImagePreprocessing(ImageInput(mode="L", height=side, width=side, mean=[0.0], std=[1.0]))

    def prepare(self, raw: Items, preprocessing: ImagePreprocessing, track: Track) -> Items:
        """Decode and resize; broken images are left out with ``data.broken: skip``."""
        files: list[ImageFile] = raw.inputs.tolist()
        pixels = np.empty((len(files), *preprocessing.shape), dtype=np.uint8)
        is_readable = np.ones(len(files), dtype=bool)
        for row, file in enumerate(track(files, "reading images", len(files))):
            try:
                pixels[row] = file.read_pixels(preprocessing)
            except InputError:
                if self.data.broken == "fail":
                    raise
                is_readable[row] = False
        if is_readable.all():
            return replace(raw, inputs=pixels)
        return replace(raw.subset(is_readable), inputs=pixels[is_readable])

    def compute_likeness(self, items: Items) -> Float32s | None:
        """Grey levels of 16 x 16 pixels at most, around their mean."""
        return compute_thumbnails(items.inputs)

    def find_near_duplicates(self, parts: dict[str, Items]) -> Iterable[NearDuplicates]:
        return find_near_duplicates(parts)

    def _describe_same_id(self, row: int, other: int, item_id: str) -> str:
        return (
            f"images {row} and {other} are both called '{item_id}': name each image once, and give "
            "folders and archives that are read together different names."
        )
