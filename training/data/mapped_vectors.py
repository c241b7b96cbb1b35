"""Memory-mapped vectors: a ``.npy`` file whose rows are read when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Int64s
from common.errors import InputError
from embeddings.embedding_set import normalise_rows
from embeddings.npy import map_array
from training.data.row_store import RowStore

ROWS_AT_ONCE = 8192
SHORTEST, LONGEST = 1e-12, 1e19  # what torch divides by at least; about the root of float32's largest number


class MappedVectors(RowStore):
    """Rows of a mapped file, indexed as an array of float [n, d] is."""

    def __init__(self, path: Path, array: NDArray[Any], rows: Int64s) -> None:
        self.path, self.rows = path, rows
        self._array, self._stamp = array, _read_stamp(path)

    @classmethod
    def open(cls, path: Path) -> MappedVectors:
        """Map a ``.npy`` file and check every row once.

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
            normalise_rows(block, str(path), first_row=start)
            _check_lengths(block, path, start)
        return cls(path, array, np.arange(len(array)))

    def __getitem__(self, key: Any) -> Float32s:
        """Float32 rows; raises InputError as ``check_unchanged``: reading past the end of a file kills."""
        self.check_unchanged()
        return np.asarray(self._array[self.rows[key]], dtype=np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, numbers)."""
        return len(self.rows), self._array.shape[1]

    def subset(self, rows: NDArray[Any]) -> MappedVectors:
        """The rows of an index array or boolean mask, still on disk."""
        part = MappedVectors(self.path, self._array, self.rows[rows])
        part._stamp = self._stamp
        return part

    def check_unchanged(self) -> None:
        """Raise InputError when the file's size or time changed since it was opened."""
        if _read_stamp(self.path) != self._stamp:
            raise InputError(
                f"{self.path} changed while it was trained on; the last checkpoint is kept. Put the file "
                "back and go on with --resume, or start a new run in another --out."
            )


def _check_lengths(block: NDArray[Any], path: Path, first_row: int) -> None:
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


def _read_stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None where there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns
