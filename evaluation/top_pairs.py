"""The pairs at the top of the impostor scores, kept with their positions at 8 or 12 bytes a pair."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 2 * 2**30  # bytes of pairs beyond which they go to a temporary file

Chunk = tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]


@dataclass
class TopPairs:
    """Positions in ``a`` and ``b`` and scores of pairs, in chunks; those that do not fit lie on disk."""

    dtype: np.dtype[Any]
    chunks: list[Chunk] = field(default_factory=list)
    length: int = 0

    @classmethod
    def between(cls, n_a: int, n_b: int) -> TopPairs:
        """An empty list for positions below ``n_a`` and ``n_b``."""
        return cls(np.dtype(np.uint16 if max(n_a, n_b) <= 2**16 else np.uint32))

    def add(self, a: NDArray[Any], b: NDArray[Any], scores: NDArray[np.float32]) -> None:
        """Append pairs; the arrays are copied."""
        if not len(scores):
            return
        bytes_each = 2 * self.dtype.itemsize + 4
        if (self.length + len(scores)) * bytes_each <= IN_MEMORY:
            self.chunks.append((a.copy(), b.copy(), scores.copy()))
        else:
            self.chunks.append((_on_disk(a), _on_disk(b), _on_disk(scores)))
        self.length += len(scores)

    def take(self, shares: int) -> list[list[Chunk]]:
        """The chunks dealt into shares; none are left here, so that each can be freed once it is used."""
        chunks, self.chunks = self.chunks, []
        return [chunks[number::shares] for number in range(shares)]


def room(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array [n] to be filled; beyond half of ``IN_MEMORY`` in a file that has no name."""
    if 2 * n * dtype.itemsize <= IN_MEMORY:
        return np.empty(n, dtype=dtype)
    with tempfile.TemporaryFile(prefix="limen-pairs-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=(n,))


def _on_disk(values: NDArray[Any]) -> NDArray[Any]:
    """A copy in a file that has no name and lasts as long as the copy."""
    with tempfile.TemporaryFile(prefix="limen-pairs-") as file:
        values.tofile(file)
        file.flush()
        return np.memmap(file, dtype=values.dtype, mode="r+", shape=values.shape)
