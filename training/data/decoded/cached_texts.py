"""Texts that stay on disk: their UTF-8 in a cache, one after the other, their lengths in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from api_schemas.data_config import DataConfig
from common.array_types import Bools, Int64s
from common.errors import InputError
from common.progress import Say
from embeddings.arrow_columns import check_texts
from embeddings.written_columns import are_integers
from training.data.decoded.open_cache import GIB, open_cache
from training.data.decoded.row_cache import KEY_BYTES, RowCache, compute_key
from training.data.labelled_files import stamp_file
from training.data.row_store import RowStore

MEMORY_OF_BYTE = 8  # bytes of memory at most while a byte of a file of texts is read into it


class CachedTexts(RowStore):
    """Text objects [n], read when they are used.

    Args:
        cache: whose rows are bytes. firsts, counts: int64 [n], where each text lies, and its bytes.
        is_padded: bool [n], which texts are integers that may have spaces around them.
    """

    def __init__(self, cache: RowCache, firsts: Int64s, counts: Int64s, is_padded: Bools) -> None:
        self._cache, self._firsts, self._counts, self._is_padded = cache, firsts, counts, is_padded

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._firsts),)

    def __getitem__(self, key: Any) -> NDArray[np.object_]:
        rows = np.arange(len(self))[key]
        wanted = np.atleast_1d(rows)
        texts = np.empty(len(wanted), dtype=object)
        firsts, counts = self._firsts[wanted], self._counts[wanted]
        borders = np.flatnonzero(firsts[1:] != firsts[:-1] + counts[:-1]) + 1  # of neighbours in the cache
        for run in np.split(np.arange(len(wanted)), borders) if len(wanted) else ():
            content = self._cache.read_run(int(firsts[run[0]]), int(counts[run].sum())).tobytes()
            end = 0
            for row in run.tolist():
                start, end = end, end + int(counts[row])
                texts[row] = content[start:end].decode()
        is_padded = self._is_padded[wanted]
        if is_padded.any():
            trimmed = pc.utf8_trim_whitespace(pa.array(texts[is_padded].tolist(), pa.large_string()))
            texts[is_padded] = trimmed.to_pylist()
        return texts if rows.ndim else texts[0]

    def subset(self, rows: NDArray[Any]) -> CachedTexts:
        return CachedTexts(self._cache, self._firsts[rows], self._counts[rows], self._is_padded[rows])


class CachedColumn:
    """The column of texts of one or several files, taken aside into a cache unless it is there already.

    Attributes:
        name: of the column.
    """

    def __init__(self, name: str, cache: RowCache, say: Callable[[], None]) -> None:
        self.name, self._cache, self._say = name, cache, say
        self._firsts: list[Int64s] = []
        self._counts: list[Int64s] = []
        self._is_padded: list[Bools] = []
        self._n = 0

    @classmethod
    def open_large(cls, data: DataConfig, paths: Sequence[Path], say: Say) -> CachedColumn | None:
        """For files that take more than ``data.memory_gb`` in memory; None where they do not.

        Raises:
            InputError: no room for them.
        """
        size = sum(path.stat().st_size for path in paths if path.is_file())
        if MEMORY_OF_BYTE * size <= data.memory_gb * GIB:
            return None
        source = ", ".join(str(path.absolute()) for path in paths)
        rule = {"texts": data.text_column, "encoding": data.encoding}
        cache, bounds = open_cache(data, rule, source, (), np.uint8, size, say)
        what = f"The texts of {source} take more than data.memory_gb ({data.memory_gb:g})"
        if cache is None:
            raise InputError(
                f"{what} and than {bounds}: raise one of them, or name a folder with more room in the "
                "variable LIMEN_CACHE."
            )
        folder = cache.folder
        return cls(
            data.text_column, cache, lambda: say(f"{what}: they are written once to {folder} ({bounds}).")
        )

    @contextmanager
    def begin(self, path: Path, is_written: bool) -> Iterator[Callable[[Any], None]]:
        """See ``embeddings.tables.Aside``; what a file of the same stamp gave before is not written again.

        Raises:
            InputError: a text that is missing, empty or holds a NUL character; names the row.
        """
        stamp = stamp_file(path)
        # texts of a file that changed just now are kept under a key that nobody asks for
        key = secrets.token_bytes(KEY_BYTES) if stamp is None else compute_key(stamp.encode())
        parts: list[Int64s] = []
        integers = is_written
        with self._cache.locked():
            known = self._cache.find(key)
            first = len(self._cache) if known is None else known
            if known is None:
                self._say()

            def take(texts: Any) -> None:
                nonlocal integers
                check_texts(texts, f"column '{self.name}'", str(path), self._n)
                integers = integers and are_integers(texts)
                offsets, content = _open_buffers(texts)
                parts.append(np.diff(offsets))
                self._n += len(texts)
                if known is None:
                    self._cache.append(content[offsets[0] : offsets[-1]])

            yield take
            counts = np.concatenate([np.empty(0, np.int64), *parts])
            size = int(counts.sum())
            if known is None:
                self._cache.append(np.empty(0, np.uint8), [(key, first, size)])
            elif self._cache.count_rows(first) != size:
                raise InputError(f"{self._cache.folder} is damaged: remove it; it is filled again.")
        self._firsts.append(first + np.cumsum(counts) - counts)
        self._counts.append(counts)
        self._is_padded.append(np.full(len(counts), integers))

    def collect(self) -> CachedTexts | None:
        """The texts of all files; None where they had no such column."""
        if not self._n:
            return None
        firsts, counts = np.concatenate(self._firsts), np.concatenate(self._counts)
        return CachedTexts(self._cache, firsts, counts, np.concatenate(self._is_padded))


def _open_buffers(texts: Any) -> tuple[Int64s, NDArray[np.uint8]]:
    """Offsets int64 [n + 1] of an array of large_string, and the bytes that they count."""
    _, offsets, content = texts.buffers()
    of_all = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return of_all, np.frombuffer(content, dtype=np.uint8)
