"""The impostor pairs with the highest scores, kept with their positions at 8 or 12 bytes a pair."""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s

IN_MEMORY = 2 * 2**30  # bytes of pairs beyond which they go to a temporary file
SLAB = 2**20  # pairs allocated at once

Chunk = tuple[NDArray[Any], NDArray[Any], Float32s]
"""Positions in ``a``, positions in ``b``, scores."""


@dataclass
class TopImpostors:
    """Positions in ``a`` and ``b`` and scores of pairs, in slabs; those that do not fit lie on disk."""

    dtype: np.dtype[Any]
    slabs: list[Chunk] = field(default_factory=list)
    length: int = 0

    @classmethod
    def for_sizes(cls, n_a: int, n_b: int) -> TopImpostors:
        """An empty list for positions below ``n_a`` and ``n_b``."""
        return cls(np.dtype(np.uint16 if max(n_a, n_b) <= 2**16 else np.uint32))

    @property
    def chunks(self) -> list[Chunk]:
        """The pairs in the order in which they came, one slab after another."""
        return [
            (a[:filled], b[:filled], scores[:filled])
            for number, (a, b, scores) in enumerate(self.slabs)
            if (filled := min(SLAB, self.length - number * SLAB))
        ]

    def add(self, a: NDArray[Any], b: NDArray[Any], scores: Float32s) -> None:
        """Append pairs; the arrays are copied."""
        done = 0
        while done < len(scores):
            start = self.length % SLAB
            if not start:
                self.slabs.append(self._allocate_slab())
            n = min(SLAB - start, len(scores) - done)
            for kept, given in zip(self.slabs[-1], (a, b, scores), strict=True):
                kept[start : start + n] = given[done : done + n]
            done += n
            self.length += n

    def take(self, shards: int) -> list[list[Chunk]]:
        """The chunks dealt into shards; none are left here, so that each can be freed once it is used."""
        chunks, self.slabs = self.chunks, []
        return [chunks[number::shards] for number in range(shards)]

    def _allocate_slab(self) -> Chunk:
        each = 2 * self.dtype.itemsize + 4
        everything = _allocate_pages(SLAB * each, (len(self.slabs) + 1) * SLAB * each <= IN_MEMORY)
        middle, end = SLAB * self.dtype.itemsize, 2 * SLAB * self.dtype.itemsize
        return (
            everything[:middle].view(self.dtype),
            everything[middle:end].view(self.dtype),
            everything[end:].view(np.float32),
        )


def allocate(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array [n] to be filled in any order; beyond half of ``IN_MEMORY`` in a file without a name."""
    size = n * dtype.itemsize
    return _allocate_pages(max(size, 1), 2 * size <= IN_MEMORY)[:size].view(dtype)


def _allocate_pages(size: int, in_memory: bool) -> NDArray[np.uint8]:
    """Bytes in memory or in a file without a name.

    They take memory page by page as they are filled, where numpy asks for huge pages, hundreds of which
    are begun at once when pairs are sorted, and go back to the system as soon as they are freed.
    """
    if in_memory:
        return np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
    with tempfile.TemporaryFile(prefix="limen-pairs-") as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=(size,))
