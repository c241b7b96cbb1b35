"""Where the decoded images of a data set are kept, and how they get there."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from api_schemas.data_config import DataConfig
from common.array_types import Bools
from common.cache_folder import find_cache_folder
from common.errors import InputError
from common.progress import Say, Track
from encoder.inputs.image_input import ImagePreprocessing
from training.data.image_files import ImageFile
from training.data.items import Items
from training.data.decoded.row_cache import (
    CachedPixels,
    PixelCache,
    compute_key,
    make_room,
    name_cache,
)
from training.data.row_store import ComputedRows

GIB = 1 << 30
BLOCK_BYTES = 16 << 20  # of decoded images that reach the cache together
MOST_TOGETHER = 512
T = TypeVar("T")
R = TypeVar("R")
Pixels = NDArray[np.uint8]


class ImageStore:
    """Decodes the images of a data set, once where that is possible.

    Args:
        data: what is kept in memory (``memory_gb``), in a cache on disk (``cache_gb``), and whether broken
            images end the run.
        threads: that decode; as many as there are cores unless given.
    """

    def __init__(
        self,
        data: DataConfig,
        preprocessing: ImagePreprocessing,
        track: Track,
        say: Say,
        threads: int | None = None,
    ) -> None:
        self._data, self._preprocessing, self._track, self._say = data, preprocessing, track, say
        self._pool = ThreadPoolExecutor(threads or os.cpu_count())

    def store(self, parts: Mapping[str, Items], paths: Sequence[Path]) -> dict[str, Items]:
        """Items whose inputs are files to items whose inputs are uint8 [n, channels, height, width].

        Args:
            paths: of the data set; each has a cache of its own.

        Raises:
            InputError: a broken image, unless those are left out; a full disk; a damaged cache.
        """
        n = sum(map(len, parts.values()))
        needed = n * math.prod(self._preprocessing.shape)
        if needed <= self._data.memory_gb * GIB:
            return {name: self.decode(items) for name, items in parts.items()}
        cache = self._open_cache(n, needed, ", ".join(str(path.absolute()) for path in paths))
        keep = self._keep_nowhere if cache is None else partial(self._keep_on_disk, cache)
        stored = {}
        for name, items in parts.items():
            inputs, is_readable = keep(items.inputs.tolist())
            stored[name] = replace(_select(items, is_readable), inputs=inputs)
        if cache is not None:
            cache.forget_keys()
        return stored

    def decode(self, items: Items) -> Items:
        """The same in memory, however much it is."""
        files = items.inputs.tolist()
        pixels = np.empty((len(files), *self._preprocessing.shape), dtype=np.uint8)
        is_readable = np.ones(len(files), dtype=bool)
        decoded = self._run(self._decode, files)
        for row, image in enumerate(self._track(decoded, "reading images", len(files))):
            is_readable[row] = image is not None
            if image is not None:
                pixels[row] = image
        kept = pixels if is_readable.all() else pixels[is_readable]
        return replace(_select(items, is_readable), inputs=kept)

    def _open_cache(self, n: int, needed: int, source: str) -> PixelCache | None:
        """The cache with room for all, or None where there is none; says so before anything is written."""
        caches = find_cache_folder("images")
        name, about = name_cache(self._preprocessing, source)
        size = f"{n:,} images of {self._preprocessing.describe_shape()} take {needed / GIB:.3g} GiB"
        most = int(self._data.cache_gb * GIB)
        fits, free, removed = make_room(caches, name, needed, most)
        bounds = f"{free / GIB:.3g} GiB are free there, data.cache_gb is {self._data.cache_gb:g}"
        for other in removed:
            self._say(f"Removed the cached images of {other} to make room.")
        if not fits:
            self._say(
                f"{size}, more than data.memory_gb ({self._data.memory_gb:g}) and than {caches} may hold "
                f"({bounds}): they are decoded again in every epoch. Raise one of them, or name a folder "
                "with more room in the variable LIMEN_CACHE."
            )
            return None
        cache = PixelCache(caches / name, self._preprocessing.shape, about, most)
        self._say(
            f"{size}, more than data.memory_gb ({self._data.memory_gb:g}): they are decoded once into "
            f"{cache.folder} ({bounds}), which holds {len(cache):,} already."
        )
        return cache

    def _keep_on_disk(self, cache: PixelCache, files: list[ImageFile]) -> tuple[CachedPixels, Bools]:
        found = self._track(self._fill(cache, files), "caching images", len(files))
        rows = np.fromiter(found, dtype=np.int64, count=len(files))
        is_readable = rows >= 0
        return CachedPixels(cache, rows[is_readable]), is_readable

    def _keep_nowhere(self, files: list[ImageFile]) -> tuple[ComputedRows, Bools]:
        is_readable = np.ones(len(files), dtype=bool)
        sums, checksum = np.zeros(len(files), dtype=np.uint32), 0
        decoded = self._run(self._decode, files)
        for row, image in enumerate(self._track(decoded, "checking images", len(files))):
            is_readable[row] = image is not None
            if image is not None:
                sums[row], checksum = zlib.crc32(image.data), zlib.crc32(image.data, checksum)
        raw = np.empty(len(files), dtype=object)
        raw[:] = files
        shape = self._preprocessing.shape
        return (
            ComputedRows(raw[is_readable], self._decode_all, shape, sums[is_readable], checksum),
            is_readable,
        )

    def _fill(self, cache: PixelCache, files: list[ImageFile]) -> Iterator[int]:
        """The row of each file in the cache, decoded if need be; -1 for a broken image that is left out."""
        at_once = max(1, min(MOST_TOGETHER, BLOCK_BYTES // cache.row_bytes))
        for start in range(0, len(files), at_once):
            block = files[start : start + at_once]
            stamps = list(self._pool.map(_compute_stamp, block))
            rows = [cache.find(stamp) for stamp in stamps]
            if None in rows:
                with cache.locked():
                    yield from self._add(cache, block, stamps)
            else:
                yield from (row for row in rows if row is not None)

    def _add(
        self, cache: PixelCache, files: Sequence[ImageFile], stamps: Sequence[bytes | None]
    ) -> list[int]:
        """The rows of a block of files, those added that the cache lacks."""
        read = list(self._run(partial(self._read, cache), list(zip(files, stamps, strict=True))))
        pixels: list[Pixels] = []
        contents: dict[bytes, int] = {}
        named: list[tuple[bytes, int]] = []
        rows = []
        for stamp, result in zip(stamps, read, strict=True):
            if result is None:
                rows.append(-1)
                continue
            key, image = result
            row = contents.get(key, cache.find(key))
            if row is None:
                assert image is not None
                row = contents[key] = len(cache) + len(pixels)
                pixels.append(image)
            if stamp is not None and key != stamp and cache.find(stamp) is None:
                named.append((stamp, row))
            rows.append(row)
        if contents or named:
            cache.append(pixels, [*contents.items(), *named])
        return rows

    def _read(self, cache: PixelCache, named: tuple[ImageFile, bytes | None]) -> tuple[bytes, Pixels | None]:
        """The key of a file and, where the cache lacks it, its pixels."""
        file, stamp = named
        if stamp is not None and cache.find(stamp) is not None:
            return stamp, None
        with file.name_errors():
            content = file.read()
            key = compute_key(content)
            return key, None if cache.find(key) is not None else file.decode(content, self._preprocessing)

    def _decode(self, file: ImageFile) -> Pixels:
        return file.read_pixels(self._preprocessing)

    def _decode_all(self, files: Sequence[ImageFile]) -> Pixels:
        return np.stack(list(self._pool.map(self._decode, files)))

    def _run(self, function: Callable[[T], R], values: Sequence[T]) -> Iterator[R | None]:
        """What a function gives of each, in their order, on all cores; None for an image that is left out."""

        def attempt(value: T) -> R | None:
            try:
                return function(value)
            except InputError:
                if self._data.broken == "fail":
                    raise
                return None

        for start in range(0, len(values), MOST_TOGETHER):
            yield from self._pool.map(attempt, values[start : start + MOST_TOGETHER])


def _select(items: Items, is_readable: Bools) -> Items:
    return items if is_readable.all() else items.subset(is_readable)


def _compute_stamp(file: ImageFile) -> bytes | None:
    stamp = file.stamp()
    return None if stamp is None else compute_key(stamp.encode())
