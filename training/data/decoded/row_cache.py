"""Decoded images on disk: their pixels in one file, and in another which file's bytes gave which row."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Int64s, RowIndices
from common.atomic_files import write_atomically
from common.errors import InputError
from common.file_locks import FileLock
from encoder.inputs.image_input import ImagePreprocessing
from training.data.row_store import RowStore

FORMAT = 1
KEY_BYTES = 16
PIXELS_FILE, ROWS_FILE, ABOUT_FILE, LOCK_FILE = "pixels.u8", "rows.bin", "about.json", "lock"
MOST_KEPT = 0.9  # of the free disk that is filled
_RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("row", "<i8")])


def compute_key(content: bytes) -> bytes:
    """The key of a file's bytes, or of what tells that they have not changed."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


class PixelCache:
    """The decoded images of one data set in one size and mode; only grows, by whole blocks.

    Pixels reach the disk before the records that say whose they are, so that what a killed process left is
    overwritten, not believed. Processes take turns with ``locked``, block by block. A cache that is open is
    not removed to make room for another.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], about: dict[str, Any], most: int) -> None:
        """Open it, or begin it.

        Args:
            shape: of an image's pixels. about: what it is of, written beside it for whoever looks.
            most: bytes of pixels that it may hold.

        Raises:
            InputError: it is damaged.
        """
        self.folder, self.shape, self._most = folder, shape, most
        self.row_bytes = math.prod(shape)
        self._use = _hold_folder(folder)
        self._pixels, self._records = (
            os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in (PIXELS_FILE, ROWS_FILE)
        )
        if not (folder / ABOUT_FILE).exists():
            write_atomically(folder / ABOUT_FILE, (json.dumps(about, indent=2) + "\n").encode())
        os.utime(folder / ABOUT_FILE)  # when it was last of use
        weakref.finalize(self, _close, self._pixels, self._records, self._use)
        self._rows: dict[bytes, int] = {}
        self._n_records = self._end = 0
        self._read_records()

    def __len__(self) -> int:
        """How many images it holds."""
        return self._end

    def find(self, key: bytes | None) -> int | None:
        """The row of a file by the key of its bytes or of its stamp; None where there is none."""
        return None if key is None else self._rows.get(key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The turn of this process; what others have added meanwhile is known first."""
        with FileLock(self.folder / LOCK_FILE, wait=True):
            self._read_records()
            yield

    def append(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[tuple[bytes, int]]) -> None:
        """Add images and the keys of rows, those of rows that were there before as well; while ``locked``.

        Args:
            pixels: each of the cache's shape; they get the next rows.
            keys: each with its row.

        Raises:
            InputError: the disk is full, or more is held than may be; what was added before is kept.
        """
        if (self._end + len(pixels)) * self.row_bytes > self._most:
            raise InputError(
                f"{self.folder} holds {self._end:,} images, of files too that changed since: data.cache_gb "
                "has no room for more. Remove that folder, or raise data.cache_gb."
            )
        try:
            if pixels:
                _write(self._pixels, np.stack(pixels), self._end * self.row_bytes)
                os.fdatasync(self._pixels)
            records = np.array(keys, dtype=_RECORD)
            _write(self._records, records, self._n_records * _RECORD.itemsize)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self.folder}: the disk is full after {self._end:,} decoded images, which are kept: free "
                "some of it, name another folder in the variable LIMEN_CACHE, or set data.cache_gb to 0, "
                "which decodes images again in every epoch."
            ) from None
        self._rows.update(keys)
        self._n_records += len(records)
        self._end += len(pixels)

    def forget_keys(self) -> None:
        """Give back the memory of the keys, once all rows are known."""
        self._rows = {}

    def read(self, rows: RowIndices) -> NDArray[np.uint8]:
        """Pixels uint8 [n, *shape] of those rows, neighbours in one go.

        Read, not mapped: pages of a mapped file count as the process's own memory until the system needs
        them, and reading a mapped file that was cut off kills.
        """
        pixels = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for first, last in _find_runs(rows):
            block = pixels[first:last].data.cast("B")
            offset = int(rows[first]) * self.row_bytes
            while len(block):
                n_read = os.preadv(self._pixels, [block], offset)
                if not n_read:
                    raise InputError(
                        f"{self.folder / PIXELS_FILE} was cut off while it was used: remove {self.folder}, "
                        "and go on with --resume."
                    )
                block, offset = block[n_read:], offset + n_read
        return pixels

    def fetch(self, rows: RowIndices) -> None:
        """Let the system read those rows from the disk ahead."""
        for first, last in _find_runs(rows):
            offset, size = int(rows[first]) * self.row_bytes, (last - first) * self.row_bytes
            os.posix_fadvise(self._pixels, offset, size, os.POSIX_FADV_WILLNEED)

    def _read_records(self) -> None:
        """Take in the records that are not known yet; a torn one at the end is not one."""
        n_held = os.fstat(self._pixels).st_size // self.row_bytes
        size = os.fstat(self._records).st_size // _RECORD.itemsize * _RECORD.itemsize
        known = self._n_records * _RECORD.itemsize
        records = np.frombuffer(_read(self._records, size - known, known), dtype=_RECORD)
        if len(records) and int(records["row"].max()) >= n_held:
            raise InputError(
                f"{self.folder} is damaged: {PIXELS_FILE} holds {n_held:,} images, {ROWS_FILE} tells of "
                "more. Remove that folder; it is filled again."
            )
        self._rows.update(zip(records["key"].tolist(), records["row"].tolist(), strict=True))
        self._n_records += len(records)
        if len(records):
            self._end = max(self._end, int(records["row"].max()) + 1)


class CachedPixels(RowStore):
    """Images of a cache, uint8 [n, channels, height, width].

    Args:
        rows: of the cache, int64 [n].
    """

    def __init__(self, cache: PixelCache, rows: Int64s) -> None:
        self._cache, self._rows = cache, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._cache.shape)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows = self._rows[key]
        pixels = self._cache.read(np.atleast_1d(rows))
        return pixels if rows.ndim else pixels[0]

    def subset(self, rows: NDArray[Any]) -> CachedPixels:
        return CachedPixels(self._cache, self._rows[rows])

    def expect(self, rows: RowIndices) -> None:
        self._cache.fetch(self._rows[rows])


def name_cache(preprocessing: ImagePreprocessing, source: str) -> tuple[str, dict[str, Any]]:
    """The folder's name and what is written about it: of a data set, and of all that decides its pixels."""
    rule = preprocessing.rule.model_dump(mode="json", exclude={"mean", "std", "value_range"})
    about = {"format": FORMAT, "source": source, "rule": rule}
    return compute_key(json.dumps(about, sort_keys=True).encode()).hex(), about


def make_room(caches: Path, own: str, needed: int, most: int) -> tuple[bool, int, list[str]]:
    """Whether a cache may grow to ``needed`` bytes, within ``most`` of all caches and what is free.

    Caches of other data sets that nobody has open are removed for it, those longest out of use first.

    Returns:
        Whether they may; how many bytes of the disk are free; the sources whose caches were removed.
    """
    removed: list[str] = []
    others = sorted(
        (about for about in caches.glob(f"*/{ABOUT_FILE}") if about.parent.name != own),
        key=lambda about: about.stat().st_mtime,
    )
    own_size = _measure_folder(caches / own)
    held = sum(_measure_folder(about.parent) for about in others) + own_size
    more = max(0, needed - own_size)
    while True:
        free = shutil.disk_usage(next(folder for folder in (caches, *caches.parents) if folder.exists())).free
        fits = more <= MOST_KEPT * free and held + more <= most
        if fits or not others or own_size + more > most:
            return fits, free, removed
        about = others.pop(0)
        size = _measure_folder(about.parent)
        source = _read_source(about)
        if _remove_unused(about.parent):
            held -= size
            removed.append(source)


def _find_runs(rows: RowIndices) -> list[tuple[int, int]]:
    """Where neighbours of the file begin and end among ``rows``."""
    ends = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *ends], [*ends, len(rows)], strict=True)) if len(rows) else []


def _close(*handles: int) -> None:
    for handle in handles:
        os.close(handle)


def _write(handle: int, content: NDArray[Any], offset: int) -> None:
    left = memoryview(content.view(np.uint8).reshape(-1).data)
    while len(left):
        n_written = os.pwrite(handle, left, offset)
        left, offset = left[n_written:], offset + n_written


def _read(handle: int, size: int, offset: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(handle, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def _hold_folder(folder: Path) -> int:
    """Make a folder and mark it as open, as long as the handle is; again where it was removed meanwhile."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # of file systems that lock no folders
            fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
        os.close(handle)


def _remove_unused(folder: Path) -> bool:
    """Remove a cache; False where a process has it open."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _measure_folder(folder: Path) -> int:
    """Bytes of the pixels of a cache; 0 where there is none."""
    with suppress(FileNotFoundError):
        return (folder / PIXELS_FILE).stat().st_size
    return 0


def _read_source(about: Path) -> str:
    with suppress(OSError, ValueError, LookupError):
        return str(json.loads(about.read_bytes())["source"])
    return about.parent.name
