"""Vectors that stay on disk: a ``.npy`` file, mapped, its labels beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.errors import InputError
from embeddings.embedding_set import unit_rows
from embeddings.npy import map_array

ROWS_AT_ONCE = 8192
SHORTEST, LONGEST = 1e-12, 1e19  # what torch divides by at least; about the root of float32's largest number


class Mapped:
    """Rows of a file that are read when they are asked for; indexed as an array of float [n, d] is."""

    def __init__(self, path: Path, array: NDArray[Any], rows: Int64s) -> None:
        self.path, self.rows = path, rows
        self._array, self._seen = array, _stamp(path)

    @classmethod
    def open(cls, path: Path) -> Mapped:
        """Map a ``.npy`` file and look at every row once.

        Raises:
            InputError: no such file, no array of numbers [n, d], a row that ``unit_rows`` refuses, or one
                whose length float32 cannot hold.
        """
        if not path.exists():
            raise InputError(f"{path} cannot be read as a .npy array: it does not exist.")
        array = map_array(path)
        if array.ndim != 2 or not array.size:
            raise InputError(f"{path} must hold numbers of shape [n, d], found shape {array.shape}.")
        for start in range(0, len(array), ROWS_AT_ONCE):
            block = array[start : start + ROWS_AT_ONCE]
            unit_rows(block, str(path), first_row=start)
            _refuse_lengths(block, path, start)
        return cls(path, array, np.arange(len(array)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Float32s:
        """Float32 rows; raises InputError as ``refuse_change``: reading past the end of a file kills."""
        self.refuse_change()
        return np.asarray(self._array[self.rows[key]], dtype=np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, numbers)."""
        return len(self.rows), self._array.shape[1]

    def subset(self, rows: NDArray[Any]) -> Mapped:
        """The rows of an index array or boolean mask, still on disk."""
        part = Mapped(self.path, self._array, self.rows[rows])
        part._seen = self._seen
        return part

    def refuse_change(self) -> None:
        """Raise InputError when the file's size or time changed since it was opened."""
        if _stamp(self.path) != self._seen:
            raise InputError(
                f"{self.path} changed while it was trained on; the last checkpoint is kept. Put the file "
                "back and go on with --resume, or start a new run in another --out."
            )


def _refuse_lengths(block: NDArray[Any], path: Path, first_row: int) -> None:
    """Training brings rows to length one in float32, where squares must neither overflow nor vanish."""
    with np.errstate(over="ignore", under="ignore"):
        single = block.astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", single, single, dtype=np.float64))
    bad = np.flatnonzero(~((lengths >= SHORTEST) & (lengths <= LONGEST)))
    if bad.size:
        raise InputError(
            f"{path}: row {first_row + bad[0]} of the embeddings has the length {lengths[bad[0]]:.3g} in "
            f"float32, {SHORTEST:.0e} to {LONGEST:.0e} can be used ({bad.size} such rows): scale them."
        )


def _stamp(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns
