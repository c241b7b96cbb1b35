"""Query vectors: finite, non-zero rows of the right dimension, brought to length one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Float64s, UnitVectors
from common.errors import InputError
from embeddings.embedding_set import normalise_rows

UNIT_TOLERANCE = 1e-6  # of the squared length; rows this close keep their bits, so that they find themselves


def normalise_queries(vectors: ArrayLike, dim: int, what: str = "query") -> UnitVectors:
    """Float32 [q, d] unit rows from any real [q, d] or [d].

    Rows that are already of length one keep their bits, so a query by a stored vector is that vector.

    Raises:
        InputError: no rows, a wrong dimension, NaN, infinity or a zero row; names the first bad row.
    """
    try:
        raw = np.asarray(vectors)
    except ValueError:
        raise InputError(f"{what}: the vectors are not a rectangular array of numbers.") from None
    if raw.ndim == 1 and raw.dtype.kind in "fiu":
        raw = raw[None, :]
    if raw.ndim != 2 or raw.shape[0] == 0:
        raise InputError(f"{what}: vectors must be a non-empty [q, {dim}] array, found shape {raw.shape}.")
    if raw.shape[1] != dim:
        raise InputError(f"{what}: the index holds vectors of {dim} numbers, found {raw.shape[1]}.")
    if raw.dtype == np.float32:
        squares: Float64s = np.einsum("ij,ij->i", raw, raw, dtype=np.float64)
        if all(abs(square - 1.0) <= UNIT_TOLERANCE for square in squares.tolist()):
            return np.ascontiguousarray(raw)
        off = ~(np.abs(squares - 1.0) <= UNIT_TOLERANCE)
        rows = np.array(raw)
        rows[off] = normalise_rows(raw, what)[off]
        return rows
    return normalise_rows(raw, what)
