"""Where the decoded files of a data set are kept, and how they get there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from api_schemas.data_config import DataConfig
from common.array_types import Bools
from common.errors import InputError
from common.progress import Say, Track
from encoder.inputs.preprocessing import Preprocessing
from training.data.decoded.open_cache import GIB, open_cache
from training.data.decoded.pieces import Pieces
from training.data.decoded.row_cache import CachedRows, RowCache, compute_key
from training.data.items import Items
from training.data.labelled_files import LabelledFile
from training.data.row_store import ComputedRows, RowStore

BLOCK_BYTES = 16 << 20  # of decoded files that reach the cache together
MOST_TOGETHER = 512
STAMPED = 64  # files that a thread looks at in one go: each takes less than to wake another thread
SAMPLED = 64  # recordings that the room for all is estimated by
T = TypeVar("T")
R = TypeVar("R")
Rows = NDArray[Any]


class FileStore:
    """Decodes the files of a data set, once where that is possible.

    Args:
        data: what is kept in memory (``memory_gb``), in a cache on disk (``cache_gb``), and whether broken
            files end the run.
        preprocessing: which says how a file's content becomes its rows: those of an image are one, uint8 and
            not yet normalised, those of a recording are its pieces.
        noun: what a file is called in messages.
        threads: that decode; as many as there are cores unless given.
    """

    def __init__(
        self,
        data: DataConfig,
        preprocessing: Preprocessing,
        track: Track,
        say: Say,
        noun: str,
        threads: int | None = None,
    ) -> None:
        self._data, self._preprocessing, self._noun = data, preprocessing, noun
        self._track, self._say = track, say
        self._dtype = np.dtype(np.float32 if preprocessing.normalisation is None else np.uint8)
        self._pool = ThreadPoolExecutor(threads or os.cpu_count())

    def store(self, parts: Mapping[str, Items], paths: Sequence[Path]) -> dict[str, Items]:
        """Items whose inputs are files to items whose inputs are their rows: [n, *shape], or ``Pieces``.

        Args:
            paths: of the data set; each has a cache of its own.

        Raises:
            InputError: a broken file, unless those are left out; a full disk; a damaged cache.
        """
        n, most = sum(map(len, parts.values())), self._data.memory_gb * GIB
        needed = n * self._dtype.itemsize * self._preprocessing.most_numbers
        if needed > most and self._preprocessing.has_pieces:
            needed = self._estimate_pieces(parts)
        if needed <= most:
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
        is_readable = np.ones(len(files), dtype=bool)
        decoded = self._track(self._run(self._decode, files), f"reading {self._noun}s", len(files))
        if self._preprocessing.has_pieces:
            recordings = []
            for row, pieces in enumerate(decoded):
                is_readable[row] = pieces is not None
                if pieces is not None:
                    recordings.append(pieces)
            kept = _select(items, is_readable)
            return replace(kept, inputs=Pieces.hold(recordings, self._preprocessing.shape))
        images = np.empty((len(files), *self._preprocessing.shape), dtype=self._dtype)
        for row, image in enumerate(decoded):
            is_readable[row] = image is not None
            if image is not None:
                images[row] = image[0]
        return replace(
            _select(items, is_readable), inputs=images if is_readable.all() else images[is_readable]
        )

    def _estimate_pieces(self, parts: Mapping[str, Items]) -> int:
        """Bytes of the pieces of all recordings, by the mean of a sample."""
        files = np.concatenate([items.inputs for items in parts.values()])
        sample = files[:: -(-len(files) // SAMPLED)].tolist()
        sizes = [pieces.nbytes for pieces in self._run(self._decode, sample) if pieces is not None]
        return round(len(files) * float(np.mean(sizes))) if sizes else 0

    def _open_cache(self, n: int, needed: int, source: str) -> RowCache | None:
        """The cache with room for all; None where there is none, and images are decoded in every epoch."""
        about = "take" if not self._preprocessing.has_pieces else "take about"
        what = f"{n:,} {self._noun}s of {self._preprocessing.describe_shape()} {about} {needed / GIB:.3g} GiB"
        rule = self._preprocessing.rule.model_dump(mode="json")
        if self._preprocessing.normalisation is not None:  # which comes after what is kept
            rule = {name: rule[name] for name in rule.keys() - {"mean", "std", "value_range"}}
        shape = self._preprocessing.shape
        cache, bounds = open_cache(self._data, rule, source, shape, self._dtype, needed, self._say)
        if cache is not None:
            self._say(
                f"{what}, more than data.memory_gb ({self._data.memory_gb:g}): they are decoded once into "
                f"{cache.folder} ({bounds}), which holds {len(cache):,} already."
            )
            return cache
        sentence = f"{what}, more than data.memory_gb ({self._data.memory_gb:g}) and than {bounds}"
        cure = "Raise one of them, or name a folder with more room in the variable LIMEN_CACHE."
        if self._preprocessing.has_pieces:
            raise InputError(f"{sentence}. {cure}")
        self._say(f"{sentence}: they are decoded again in every epoch. {cure}")
        return None

    def _keep_on_disk(self, cache: RowCache, files: list[LabelledFile]) -> tuple[RowStore, Bools]:
        found = self._track(self._fill(cache, files), f"caching {self._noun}s", len(files))
        rows = np.fromiter(found, dtype=np.int64, count=len(files))
        is_readable = rows >= 0
        rows = rows[is_readable]
        if not self._preprocessing.has_pieces:
            return CachedRows(cache, rows), is_readable
        counts = np.array([cache.count_rows(row) for row in rows.tolist()], dtype=np.int64)
        return Pieces(cache, rows, counts), is_readable

    def _keep_nowhere(self, files: list[LabelledFile]) -> tuple[ComputedRows, Bools]:
        is_readable = np.ones(len(files), dtype=bool)
        sums, checksum = np.zeros(len(files), dtype=np.uint32), 0
        decoded = self._run(self._decode, files)
        for row, image in enumerate(self._track(decoded, f"checking {self._noun}s", len(files))):
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

    def _fill(self, cache: RowCache, files: list[LabelledFile]) -> Iterator[int]:
        """The first row of each file in the cache, decoded if need be; -1 for one that is left out."""
        of_one = self._dtype.itemsize * self._preprocessing.most_numbers
        at_once = max(1, min(MOST_TOGETHER, BLOCK_BYTES // of_one))
        for start in range(0, len(files), at_once):
            block = files[start : start + at_once]
            parts = [block[first : first + STAMPED] for first in range(0, len(block), STAMPED)]
            stamps = list(chain.from_iterable(self._pool.map(_compute_stamps, parts)))
            rows = [cache.find(stamp) for stamp in stamps]
            if None in rows:
                with cache.locked():
                    yield from self._add(cache, block, stamps)
            else:
                yield from (row for row in rows if row is not None)

    def _add(
        self, cache: RowCache, files: Sequence[LabelledFile], stamps: Sequence[bytes | None]
    ) -> list[int]:
        """The first rows of a block of files, those added that the cache lacks."""
        read = list(self._run(partial(self._read, cache), list(zip(files, stamps, strict=True))))
        added: list[Rows] = []
        end = len(cache)
        contents: dict[bytes, tuple[int, int]] = {}
        named: list[tuple[bytes, int, int]] = []
        firsts = []
        for stamp, result in zip(stamps, read, strict=True):
            if result is None:
                firsts.append(-1)
                continue
            key, rows = result
            known = cache.find(key)
            place = contents.get(key) if known is None else (known, cache.count_rows(known))
            if place is None:
                assert rows is not None
                place = contents[key] = end, len(rows)
                added.append(rows)
                end += len(rows)
            if stamp is not None and key != stamp and cache.find(stamp) is None:
                named.append((stamp, *place))
            firsts.append(place[0])
        if contents or named:
            keys = [(key, *place) for key, place in contents.items()]
            empty = np.empty((0, *cache.shape), dtype=cache.dtype)
            cache.append(np.concatenate(added) if added else empty, [*keys, *named])
        return firsts

    def _read(self, cache: RowCache, named: tuple[LabelledFile, bytes | None]) -> tuple[bytes, Rows | None]:
        """The key of a file and, where the cache lacks it, its rows."""
        file, stamp = named
        if stamp is not None and cache.find(stamp) is not None:
            return stamp, None
        with file.name_errors():
            content = file.read()
            key = compute_key(content)
            return key, None if cache.find(key) is not None else file.decode(content, self._preprocessing)

    def _decode(self, file: LabelledFile) -> Rows:
        with file.name_errors():
            return file.decode(file.read(), self._preprocessing)

    def _decode_all(self, files: Sequence[LabelledFile]) -> Rows:
        return np.concatenate(list(self._pool.map(self._decode, files)))

    def _run(self, function: Callable[[T], R], values: Sequence[T]) -> Iterator[R | None]:
        """What a function gives of each, in their order, on all cores; None for a file that is left out."""

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


def _compute_stamps(files: Sequence[LabelledFile]) -> list[bytes | None]:
    stamps = [file.stamp() for file in files]
    return [None if stamp is None else compute_key(stamp.encode()) for stamp in stamps]
