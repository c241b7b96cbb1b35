"""Pages of mapped vectors that were read to score candidates again, given back while the file stays cached.

The kernel maps 64 KiB around each row that is read, and counts them as memory of the process until it needs
them elsewhere: after some thousand queries the whole file. Engines that hold compressed vectors are chosen
so that it need not be.
"""

from __future__ import annotations

import mmap
from typing import Any

from common.array_types import UnitVectors

MOST_BYTES = 64 << 20  # mapped between two releases
ROW_BYTES = 64 << 10  # mapped with each row


class PageRelease:
    """Counts the rows that are read of a mapped array; one that is small, or in memory, is left alone."""

    def __init__(self, vectors: UnitVectors) -> None:
        base: Any = vectors
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        self._map = base if vectors.nbytes > MOST_BYTES else None
        self._mapped = 0

    def count(self, rows: int) -> None:
        """Note that rows were read; every so many, give back the pages, to be mapped again when needed."""
        self._mapped += rows * ROW_BYTES
        if self._mapped >= MOST_BYTES and self._map is not None:
            self._mapped = 0
            self._map.madvise(mmap.MADV_DONTNEED)
