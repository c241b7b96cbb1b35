"""Inputs that are read when they are used, so that memory does not grow with the data set."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.array_types import RowIndices
from common.errors import InputError
from common.progress import Track

OBJECTS_AT_ONCE = 256


class RowStore(ABC):
    """Rows that lie elsewhere, indexed as an array [n, ...] is: by a number, a slice, rows or a mask.

    Attributes:
        checksum: CRC-32 of the bytes of all rows in their order, where it is known already.
    """

    checksum: int | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(rows, ...)."""

    @abstractmethod
    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Rows as an array; raises InputError for what is no longer what it was."""

    @abstractmethod
    def subset(self, rows: NDArray[Any]) -> Self:
        """The rows of an index array or boolean mask, still elsewhere."""

    def __len__(self) -> int:
        return self.shape[0]

    def expect(self, rows: RowIndices) -> None:  # noqa: B027 - nothing to do for most
        """Begin to fetch what is asked for next, where that pays; the caller does not wait."""

    def check_unchanged(self) -> None:  # noqa: B027
        """Raise InputError when what is read while training is not what it was at the start."""


class ComputedRows(RowStore):
    """Rows that are computed from something smaller whenever they are asked for, ahead of time if expected.

    Args:
        raw: objects [n] that the rows are computed from.
        compute: some of them to their rows, [k, ...].
        shape: of one row.
        sums: uint32 [n], the CRC-32 of each row when it was first computed.
    """

    def __init__(
        self,
        raw: NDArray[np.object_] | RowStore,
        compute: Callable[[Sequence[Any]], NDArray[Any]],
        shape: tuple[int, ...],
        sums: NDArray[np.uint32],
        checksum: int | None = None,
    ) -> None:
        self.checksum = checksum
        self._raw, self._compute, self._row_shape, self._sums = raw, compute, shape, sums
        self._pool = ThreadPoolExecutor(1)
        self._ahead: tuple[bytes, Future[NDArray[Any]]] | None = None

    @classmethod
    def begin(
        cls,
        raw: NDArray[np.object_] | RowStore,
        compute: Callable[[Sequence[Any]], NDArray[Any]],
        track: Track,
        name: str,
    ) -> ComputedRows:
        """Each row computed once, so that all are known to be good; none is kept."""
        sums, checksum, shape = np.zeros(len(raw), dtype=np.uint32), 0, (0,)
        for row, value in enumerate(track(iterate_rows(raw), name, len(raw))):
            computed = compute([value])
            shape = computed.shape[1:]
            sums[row], checksum = zlib.crc32(computed.data), zlib.crc32(computed.data, checksum)
        return cls(raw, compute, shape, sums, checksum)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._raw), *self._row_shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = np.arange(len(self))[key]
        wanted = np.atleast_1d(rows)
        ahead, self._ahead = self._ahead, None
        is_ahead = ahead is not None and ahead[0] == wanted.tobytes()
        found = ahead[1].result() if ahead is not None and is_ahead else self._compute_rows(wanted)
        return found if rows.ndim else found[0]

    def expect(self, rows: RowIndices) -> None:
        self._ahead = rows.tobytes(), self._pool.submit(self._compute_rows, rows)

    def subset(self, rows: NDArray[Any]) -> ComputedRows:
        return ComputedRows(select_rows(self._raw, rows), self._compute, self._row_shape, self._sums[rows])

    def _compute_rows(self, rows: RowIndices) -> NDArray[Any]:
        if not len(rows):
            return np.empty((0, *self._row_shape))
        computed = self._compute(self._raw[rows].tolist())
        for row, values in zip(rows.tolist(), computed, strict=True):
            if zlib.crc32(np.ascontiguousarray(values).data) != self._sums[row]:
                name = getattr(self._raw[row], "name", f"Row {row}")
                raise InputError(
                    f"{name} changed while it was trained on; the last checkpoint is kept. Put the file back "
                    "and go on with --resume, or start a new run in another --out."
                )
        return computed


class PreparedRows(RowStore):
    """Rows that lie elsewhere, prepared whenever they are read.

    Args:
        prepare: rows [k, ...] to as many of the same shape.
    """

    def __init__(self, rows: RowStore, prepare: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._rows, self._prepare = rows, prepare

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows.shape

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = self._rows[key]
        return self._prepare(rows) if rows.ndim == len(self.shape) else self._prepare(rows[None])[0]

    def expect(self, rows: RowIndices) -> None:
        self._rows.expect(rows)

    def subset(self, rows: NDArray[Any]) -> PreparedRows:
        return PreparedRows(self._rows.subset(rows), self._prepare)


def select_rows(inputs: Any, rows: NDArray[Any]) -> Any:
    """The rows of an index array or boolean mask; of a store still elsewhere."""
    return inputs.subset(rows) if isinstance(inputs, RowStore) else inputs[rows]


def iterate_rows(inputs: NDArray[np.object_] | RowStore) -> Iterator[Any]:
    """Objects one after the other, of which a store reads a block at a time."""
    return chain.from_iterable(block.tolist() for block in read_blocks(inputs, OBJECTS_AT_ONCE))


def read_blocks(inputs: Any, size: int, rows: RowIndices | None = None) -> Iterator[NDArray[Any]]:
    """Rows of an array or a store in blocks of ``size``, the next one on its way while one is used.

    Args:
        rows: which, and in which order; all of them unless given.
    """
    order = np.arange(len(inputs)) if rows is None else rows
    blocks = [order[start : start + size] for start in range(0, len(order), size)]
    for number, block in enumerate(blocks):
        found = inputs[block]
        if isinstance(inputs, RowStore) and number + 1 < len(blocks):
            inputs.expect(blocks[number + 1])
        yield found
