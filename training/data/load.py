"""One function from the configuration's ``data`` section to items in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from api_schemas.config import DataConfig
from api_schemas.errors import ConfigError, InputError
from api_schemas.preprocessing import ImageInput, VectorInput
from decision.embedding_files import read_embeddings
from decision.progress import Track, silent
from encoder.preprocessing import Preprocessing
from training.data.glyphs import glyphs
from training.data.images import ImageFile, find_images, read_images, rule_for, with_statistics
from training.data.items import Items, Splits
from training.data.split import Rows, split_items

Say = Callable[[str], None]


def load_data(data: DataConfig, track: Track = silent, say: Say = lambda _: None) -> Splits:
    """Read everything the configuration names and cut it into parts.

    Raises:
        InputError: a missing, empty or broken file, one class only, no class with two items.
        ConfigError: a kind that this configuration cannot describe.
    """
    if data.kind == "images":
        splits = _images(data, track, say)
    elif data.kind == "embeddings":
        splits = _embeddings(data)
    elif data.kind == "builtin":
        splits = _builtin(data)
    else:
        raise ConfigError(f"data.kind: '{data.kind}' cannot be read yet.")
    _warn_of_shared_classes(splits, say)
    return splits


def _images(data: DataConfig, track: Track, say: Say) -> Splits:
    files = find_images(data.paths)
    index = _index(files)
    source = _name(data.paths)
    parts = split_items(index, data, source)
    rule = rule_for([files[row] for row in parts["train"]], data.image_size, data.colour)
    preprocessing = Preprocessing(rule)
    skip = data.broken == "skip"
    pixels, good = read_images(files, preprocessing, skip_broken=skip, track=track, say=say)
    items = replace(index.subset(np.flatnonzero(good)), inputs=pixels)
    new_row = np.cumsum(good) - 1
    parts = {name: new_row[rows[good[rows]]] for name, rows in parts.items()}
    if not data.test_paths:
        return _cut(items, parts, preprocessing)
    others = find_images(data.test_paths)
    pixels, good = read_images(others, preprocessing, skip_broken=skip, track=track, say=say)
    test = replace(_index(others).subset(np.flatnonzero(good)), inputs=pixels)
    return _cut(items, parts, preprocessing, test)


def _index(files: Sequence[ImageFile]) -> Items:
    """Labels, ids and folders of image files; their row numbers stand in for the pixels."""
    return Items(
        np.arange(len(files)),
        np.array([file.label for file in files]),
        np.array([file.name for file in files]),
        {"folder": np.array([file.folder for file in files])},
    )


def _embeddings(data: DataConfig) -> Splits:
    items = _read_vectors(data.paths)
    width = items.inputs.shape[1]
    test = _read_vectors(data.test_paths) if data.test_paths else None
    if test is not None and test.inputs.shape[1] != width:
        raise InputError(
            f"{_name(data.test_paths)} has vectors of {test.inputs.shape[1]} numbers, "
            f"{_name(data.paths)} of {width}."
        )
    parts = split_items(items, data, _name(data.paths))
    return _cut(items, parts, Preprocessing(VectorInput(dim=width)), test)


def _read_vectors(paths: Sequence[Path]) -> Items:
    if len(paths) != 1:
        raise ConfigError(f"data.path: kind 'embeddings' takes one file, found {len(paths)}.")
    read = read_embeddings(paths[0])
    return Items(read.vectors, read.labels, read.ids, read.metadata)


def _builtin(data: DataConfig) -> Splits:
    pixels, labels, ids = glyphs() if data.builtin == "glyphs" else _digits()
    items = Items(pixels[:, None], np.array(labels), np.array(ids))
    parts = split_items(items, data, f"builtin: {data.builtin}")
    side = pixels.shape[-1]
    plain = ImageInput(mode="L", height=side, width=side, mean=[0.0], std=[1.0])
    rule = with_statistics(plain, items.inputs[parts["train"]])
    return _cut(items, parts, Preprocessing(rule))


def _digits() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[str], list[str]]:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, dark on white."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (255 - np.round(bunch.images * (255 / 16))).astype(np.uint8)
    return pixels, [str(label) for label in bunch.target], [f"digit-{row:04d}" for row in range(len(pixels))]


def _cut(items: Items, parts: dict[str, Rows], rule: Preprocessing, test: Items | None = None) -> Splits:
    def part(name: str) -> Items | None:
        return items.subset(parts[name]) if len(parts[name]) else None

    return Splits(items.subset(parts["train"]), part("validation"), test or part("test"), rule)


def _warn_of_shared_classes(splits: Splits, say: Say) -> None:
    seen = np.unique(splits.train.labels)
    for name, items in splits.parts().items():
        shared = 0 if name == "train" else len(np.intersect1d(seen, items.labels))
        if shared:
            say(
                f"{shared} of {items.n_classes} {name} classes are also trained on: "
                f"{name} figures are not those of unseen classes."
            )


def _name(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)
