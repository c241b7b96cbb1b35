"""The cache of a data set's rows, opened where there is room for them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from api_schemas.data_config import DataConfig
from common.cache_folder import find_cache_folder
from common.errors import InputError
from common.progress import Say
from training.data.decoded.row_cache import (
    KEY_BYTES,
    CachedRows,
    RowCache,
    compute_key,
    make_room,
    name_cache,
)
from training.data.labelled_files import stamp_file

GIB = 1 << 30


def open_cache(
    data: DataConfig,
    rule: Mapping[str, Any],
    source: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    needed: int,
    say: Say,
) -> tuple[RowCache | None, str]:
    """The cache of a source under a rule, or None where ``needed`` bytes have no room; what bounds it, in
    words.

    Other caches that nobody has open are removed to make room, which is said.
    """
    caches = find_cache_folder("decoded")
    name, about = name_cache(rule, source)
    most = int(data.cache_gb * GIB)
    fits, free, removed = make_room(caches, name, needed, most)
    bounds = f"{free / GIB:.3g} GiB are free there, data.cache_gb is {data.cache_gb:g}"
    for other in removed:
        say(f"Removed the cached rows of {other} to make room.")
    if not fits:
        return None, f"{caches} may hold ({bounds})"
    return RowCache(caches / name, shape, dtype, about, most), bounds


def keep_rows(
    data: DataConfig,
    path: Path,
    rule: Mapping[str, Any],
    shape: tuple[int, ...],
    n: int,
    blocks: Callable[[], Iterator[NDArray[Any]]],
    say: Say,
    dtype: DTypeLike = np.float32,
) -> CachedRows:
    """All rows of one file in a cache, written block by block unless they are there already.

    Args:
        rule: all that decides the rows besides the file. shape: of one row. n: how many there are.
        blocks: reads them, [b, *shape].

    Raises:
        InputError: no room; what the blocks raise.
    """
    needed = n * math.prod(shape) * np.dtype(dtype).itemsize
    what = f"The {n:,} rows of {path} take {needed / GIB:.3g} GiB, more than data.memory_gb"
    cache, bounds = open_cache(data, rule, str(path.absolute()), shape, dtype, needed, say)
    if cache is None:
        raise InputError(
            f"{what} ({data.memory_gb:g}) and than {bounds}: raise one of them, or name a folder with more "
            "room in the variable LIMEN_CACHE."
        )
    stamp = stamp_file(path)
    # of a file that changed just now the rows are kept under a key that nobody asks for
    key = secrets.token_bytes(KEY_BYTES) if stamp is None else compute_key(stamp.encode())
    with cache.locked():
        first = cache.find(key)
        if first is None:
            say(f"{what} ({data.memory_gb:g}): they are written once to {cache.folder} ({bounds}).")
            first = len(cache)
            for block in blocks():
                cache.append(block)
            cache.append(np.empty((0, *shape)), [(key, first, n)])
    return CachedRows(cache, np.arange(first, first + n))
