"""Recordings as their pieces, of which some have more than others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Float64s, Int64s, RowIndices
from encoder.inputs.audio_input import stack_pieces
from training.data.row_store import RowStore


class PieceSource(Protocol):
    """Where pieces lie, one after the other."""

    shape: tuple[int, ...]

    def read(self, rows: RowIndices) -> NDArray[Any]:
        """Those pieces, float32 [n, *shape]."""


class Pieces(RowStore):
    """Recordings, float32 [n, most pieces, *shape]: NaN where one has fewer than another of those asked for.

    Args:
        source: of the pieces. firsts: int64 [n], the first piece of each recording. counts: int64 [n].
    """

    def __init__(self, source: PieceSource, firsts: Int64s, counts: Int64s) -> None:
        self._source, self._firsts, self._counts = source, firsts, counts

    @classmethod
    def hold(cls, recordings: Sequence[Float32s], shape: tuple[int, ...]) -> Pieces:
        """In memory. recordings: float32 [pieces, *shape] each."""
        counts = np.array([len(pieces) for pieces in recordings], dtype=np.int64)
        pieces = np.concatenate([np.empty((0, *shape), np.float32), *recordings])
        return cls(_Held(pieces), np.cumsum(counts) - counts, counts)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._counts), int(self._counts.max(initial=0)), *self._source.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = np.arange(len(self))[key]
        wanted = np.atleast_1d(rows)
        counts = self._counts[wanted]
        ends = np.cumsum(counts)
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        pieces = self._source.read(np.repeat(self._firsts[wanted], counts) + within)
        if not len(wanted):
            return np.empty((0, *self.shape[1:]), np.float32)
        stacked = stack_pieces(np.split(pieces, ends[:-1]))
        return stacked if rows.ndim else stacked[0]

    def pick(self, rows: RowIndices, drawn: Float64s) -> Float32s:
        """A piece of each of those recordings, [n, *shape]: where in it says a number in [0, 1) each."""
        return self._source.read(self._firsts[rows] + (drawn * self._counts[rows]).astype(np.int64))

    def subset(self, rows: NDArray[Any]) -> Pieces:
        return Pieces(self._source, self._firsts[rows], self._counts[rows])


class _Held:
    """Pieces in memory, float32 [n, *shape]."""

    def __init__(self, pieces: Float32s) -> None:
        self._pieces, self.shape = pieces, pieces.shape[1:]

    def read(self, rows: RowIndices) -> NDArray[Any]:
        return self._pieces[rows]
