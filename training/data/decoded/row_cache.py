"""Decoded files on disk: their rows in one file, and in another which file's bytes gave which rows."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from common.array_types import Int64s, RowIndices
from common.atomic_files import write_atomically
from common.errors import InputError
from common.file_locks import FileLock
from training.data.row_store import RowStore

FORMAT = 2
KEY_BYTES = 16
CONTENT_FILE, ROWS_FILE, ABOUT_FILE, LOCK_FILE = "content.bin", "rows.bin", "about.json", "lock"
MOST_KEPT = 0.9  # of the free disk that is filled
_RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("first", "<i8"), ("count", "<i8")])


def compute_key(content: bytes) -> bytes:
    """The key of a file's bytes, or of what tells that they have not changed."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


class RowCache:
    """The decoded files of one data set, prepared by one rule: rows of numbers; only grows, by whole blocks.

    A file is as many neighbouring rows as it takes: one of an image, one for each piece of a recording, all
    rows of a file of vectors. Rows reach the disk before the records that say whose they are, so that what a
    killed process left is overwritten, not believed. Processes take turns with ``locked``, block by block. A
    cache that is open is not removed to make room for another.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, ...], dtype: DTypeLike, about: dict[str, Any], most: int
    ) -> None:
        """Open it, or begin it.

        Args:
            shape: of a row. about: what it is of, written beside it for whoever looks.
            most: bytes of rows that it may hold.

        Raises:
            InputError: it is damaged.
        """
        self.folder, self.shape, self.dtype, self._most = folder, shape, np.dtype(dtype), most
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._use = _hold_folder(folder)
        self._content, self._records = (
            os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in (CONTENT_FILE, ROWS_FILE)
        )
        if not (folder / ABOUT_FILE).exists():
            write_atomically(folder / ABOUT_FILE, (json.dumps(about, indent=2) + "\n").encode())
        os.utime(folder / ABOUT_FILE)  # when it was last of use
        weakref.finalize(self, _close, self._content, self._records, self._use)
        self._firsts: dict[bytes, int] = {}
        self._counts: dict[int, int] = {}  # by first row, where it is not 1
        self._n_records = self._end = 0
        self._read_records()

    def __len__(self) -> int:
        """How many rows it holds."""
        return self._end

    def find(self, key: bytes | None) -> int | None:
        """The first row of a file by the key of its bytes or of its stamp; None where there is none."""
        return None if key is None else self._firsts.get(key)

    def count_rows(self, first: int) -> int:
        """How many rows the file has whose first row this is."""
        return self._counts.get(first, 1)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The turn of this process; what others have added meanwhile is known first."""
        with FileLock(self.folder / LOCK_FILE, wait=True):
            self._read_records()
            yield

    def append(self, rows: NDArray[Any], keys: Sequence[tuple[bytes, int, int]] = ()) -> None:
        """Add rows and the keys of files, those of files that were there before as well; while ``locked``.

        Args:
            rows: [n, *shape]; they get the next numbers.
            keys: each with its file's first row and how many it has.

        Raises:
            InputError: the disk is full, or more is held than may be; what was added before is kept.
        """
        if (self._end + len(rows)) * self.row_bytes > self._most:
            raise InputError(
                f"{self.folder} holds {self._end:,} rows, of files too that changed since: data.cache_gb "
                "has no room for more. Remove that folder, or raise data.cache_gb."
            )
        try:
            if len(rows):
                _write(self._content, np.ascontiguousarray(rows, self.dtype), self._end * self.row_bytes)
            if keys:
                os.fdatasync(self._content)
            records = np.fromiter(keys, dtype=_RECORD, count=len(keys))
            _write(self._records, records, self._n_records * _RECORD.itemsize)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self.folder}: the disk is full after {self._end:,} decoded rows, which are kept: free "
                "some of it, name another folder in the variable LIMEN_CACHE, or set data.cache_gb to 0, "
                "which decodes images again in every epoch."
            ) from None
        self._remember(keys)
        self._n_records += len(records)
        self._end += len(rows)

    def forget_keys(self) -> None:
        """Give back the memory of the keys, once all rows are known."""
        self._firsts, self._counts = {}, {}

    def read(self, rows: RowIndices) -> NDArray[Any]:
        """Those rows, [n, *shape], neighbours in one go.

        Read, not mapped: pages of a mapped file count as the process's own memory until the system needs
        them, and reading a mapped file that was cut off kills.
        """
        content = np.empty((len(rows), *self.shape), dtype=self.dtype)
        for first, last in _find_runs(rows):
            self._read_into(content[first:last], int(rows[first]))
        return content

    def read_run(self, first: int, count: int) -> NDArray[Any]:
        """Neighbouring rows, [count, *shape]; see ``read``."""
        content = np.empty((count, *self.shape), dtype=self.dtype)
        self._read_into(content, first)
        return content

    def fetch(self, rows: RowIndices) -> None:
        """Let the system read those rows from the disk ahead."""
        for first, last in _find_runs(rows):
            offset, size = int(rows[first]) * self.row_bytes, (last - first) * self.row_bytes
            os.posix_fadvise(self._content, offset, size, os.POSIX_FADV_WILLNEED)

    def _read_into(self, content: NDArray[Any], first: int) -> None:
        block, offset = content.data.cast("B"), first * self.row_bytes
        while len(block):
            n_read = os.preadv(self._content, [block], offset)
            if not n_read:
                raise InputError(
                    f"{self.folder / CONTENT_FILE} was cut off while it was used: remove {self.folder}, "
                    "and go on with --resume."
                )
            block, offset = block[n_read:], offset + n_read

    def _read_records(self) -> None:
        """Take in the records that are not known yet; a torn one at the end is not one."""
        n_held = os.fstat(self._content).st_size // self.row_bytes
        size = os.fstat(self._records).st_size // _RECORD.itemsize * _RECORD.itemsize
        known = self._n_records * _RECORD.itemsize
        records = np.frombuffer(_read(self._records, size - known, known), dtype=_RECORD)
        end = int((records["first"] + records["count"]).max()) if len(records) else 0
        if end > n_held:
            raise InputError(
                f"{self.folder} is damaged: {CONTENT_FILE} holds {n_held:,} rows, {ROWS_FILE} tells of "
                "more. Remove that folder; it is filled again."
            )
        self._remember(records.tolist())
        self._n_records += len(records)
        self._end = max(self._end, end)

    def _remember(self, keys: Sequence[tuple[bytes, int, int]]) -> None:
        for key, first, count in keys:
            self._firsts[key] = first
            if count != 1:
                self._counts[first] = count


class CachedRows(RowStore):
    """Rows of a cache, [n, *shape].

    Args:
        rows: of the cache, int64 [n].
    """

    def __init__(self, cache: RowCache, rows: Int64s) -> None:
        self._cache, self._rows = cache, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._cache.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = self._rows[key]
        content = self._cache.read(np.atleast_1d(rows))
        return content if rows.ndim else content[0]

    def subset(self, rows: NDArray[Any]) -> CachedRows:
        return CachedRows(self._cache, self._rows[rows])

    def expect(self, rows: RowIndices) -> None:
        self._cache.fetch(self._rows[rows])


def name_cache(rule: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """The folder's name and what is written about it: of a data set, and of all that decides its rows."""
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
    """Bytes of the rows of a cache; 0 where there is none."""
    with suppress(FileNotFoundError):
        return (folder / CONTENT_FILE).stat().st_size
    return 0


def _read_source(about: Path) -> str:
    with suppress(OSError, ValueError, LookupError):
        return str(json.loads(about.read_bytes())["source"])
    return about.parent.name
