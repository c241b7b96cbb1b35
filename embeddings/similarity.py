"""The one similarity that every decision is made on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Bools, Float32s, UnitVectors

COPY = 0.999999  # similarity from which on two vectors are one, computed or stored once more with 16 bits


def are_copies(similarities: ArrayLike) -> Bools:
    """True where two vectors are one, but for the rounding of what computed or stored them."""
    return np.asarray(np.asarray(similarities) >= COPY)


def is_copy(similarity: float) -> bool:
    """As ``are_copies`` of one: on an array of one number it would take ten times as long."""
    return similarity >= COPY


def compute_pair_similarities(a: UnitVectors, b: UnitVectors) -> Float32s:
    """Cosine of each pair of unit rows, float32 [m] in [-1, 1], accumulated in float64 and rounded.

    The sum runs along one contiguous row at a time, so a pair's similarity does not depend on how
    many pairs are computed with it, nor on the engine that proposed it.

    Args:
        a, b: float32 [m, d] unit rows; either may be [1, d] and is then compared with every row.
    """
    products = np.multiply(a, b, dtype=np.float64)
    sums = np.add.reduce(products, axis=1)
    similarities: Float32s = np.minimum(np.maximum(sums, -1.0), 1.0).astype(np.float32)
    return similarities
