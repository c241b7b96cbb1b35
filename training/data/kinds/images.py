"""``data.kind: images``: image files in class folders, zips of those, or lists of paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from api_schemas.preprocessing import ImageInput
from common.array_types import Float32s
from common.progress import Track
from embeddings.embedding_set import convert_columns
from encoder.inputs.image_input import ImagePreprocessing
from training.data.decoded.file_store import FileStore
from training.data.image_files import find_images
from training.data.image_rule import fit_image_rule, read_image_rule
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
            paths,
            self.data.path_column,
            self.data.label_column,
            self.data.encoding,
            self.say,
            self.needs_labels,
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
        """As the configuration says, or size, mode and statistics of a sample of the training images."""
        if self.data.preprocessing is not None:
            return ImagePreprocessing(read_image_rule(self.data.preprocessing, self.data.image_shape))
        return ImagePreprocessing(fit_image_rule(train.inputs.tolist(), self.data))

    def build_placeholder(self) -> ImagePreprocessing:
        if self.data.preprocessing is not None:
            return ImagePreprocessing(read_image_rule(self.data.preprocessing, self.data.image_shape))
        height, width = self.data.image_shape or (USUAL_SIDE, USUAL_SIDE)
        return ImagePreprocessing(ImageInput(mode="L", height=height, width=width, mean=[0.0], std=[1.0]))

    def store(
        self,
        parts: Mapping[str, Items],
        paths: Sequence[Path],
        preprocessing: ImagePreprocessing,
        track: Track,
    ) -> dict[str, Items]:
        """In memory up to ``data.memory_gb``, else decoded once into a cache on disk, see ``FileStore``."""
        return FileStore(self.data, preprocessing, track, self.say, self.noun).store(parts, paths)

    def prepare(self, raw: Items, preprocessing: ImagePreprocessing, track: Track) -> Items:
        """Decode and resize; broken images are left out with ``data.broken: skip``."""
        return FileStore(self.data, preprocessing, track, self.say, self.noun, threads=1).decode(raw)

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
