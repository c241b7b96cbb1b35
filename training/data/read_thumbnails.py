"""Thumbnails of the items of a data set, read again from its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from api_schemas.data_config import DataConfig
from common.array_types import Texts
from common.errors import InputError
from common.progress import Say, Track, silent_say
from encoder.inputs.preprocessing import Preprocessing, RawInput
from encoder.thumbnails import make_thumbnail
from training.data.image_files import ImageFile
from training.data.kinds import open_kind
from training.data.kinds.audio import AudioFile

TEST_PREFIX = "test/"  # of ids that a separate test set shares with the rest, see EvaluationSource


def read_thumbnails(
    data: DataConfig,
    preprocessing: Preprocessing,
    ids: Texts,
    side: int,
    track: Track,
    say: Say = silent_say,
) -> Iterator[bytes | None]:
    """The thumbnail of each id, in their order; None for an item without picture or text, which is said.

    Only one picture is in memory at a time.
    """
    raw = _read_raw_inputs(data, preprocessing, say)
    without = 0
    for item_id in track(ids.tolist(), "thumbnails", len(ids)):
        read = raw.get(item_id) or raw.get(item_id.removeprefix(TEST_PREFIX))
        thumbnail = None
        if read is not None:
            try:
                thumbnail = make_thumbnail(preprocessing, read(), side)
            except InputError:  # a broken file, which training left out or refused
                thumbnail = None
        without += thumbnail is None
        yield thumbnail
    if without:
        say(
            f"{without:,} of {len(ids):,} items have no thumbnail: the data holds no picture or text of them."
        )


def _read_raw_inputs(
    data: DataConfig, preprocessing: Preprocessing, say: Say
) -> dict[str, Callable[[], RawInput]]:
    """By id, what reads the raw input of an item; those of a separate test set come first."""
    kind = open_kind(data, say)
    parts = [("", kind.read_all())]
    if data.test_paths:
        parts.append((TEST_PREFIX, kind.read(data.test_paths, preprocessing)))
    raw: dict[str, Callable[[], RawInput]] = {}
    for prefix, items in parts:
        for item_id, value in zip(items.ids.tolist(), items.inputs, strict=True):
            reader = _build_reader(value)
            if reader is not None:
                raw[prefix + item_id if prefix and item_id in raw else item_id] = reader
    return raw


def _build_reader(value: Any) -> Callable[[], RawInput] | None:
    if isinstance(value, ImageFile):
        return value.open
    if isinstance(value, AudioFile):
        return value.read
    if isinstance(value, str):
        return lambda: value
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        return lambda: Image.fromarray(value[0])
    return None
