"""Fingerprints of vectors: a few whole numbers by which a vector is known again, up to rounding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from common.array_types import Float32s

LENGTH = 8
QUANTUM = 1e-4
TOLERANCE = 20  # quanta


def compute_fingerprints(vectors: Float32s) -> list[list[int]]:
    """The fingerprint of each row [n, d]: its projections, at length one, on eight directions of signs, in 1e-4.

    The projections of a difference of length r have a standard deviation of r. Copies that were rounded to
    16 bits or to four decimals are the same by ``are_same``; of vectors 0.01 apart (a cosine of 0.99995) in many
    dimensions fewer than one pair in a million is. A vector cannot be computed back from it.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    projections = (vectors @ _get_directions(vectors.shape[1])) / (np.float32(QUANTUM) * lengths[:, None])
    fingerprints: list[list[int]] = np.rint(projections).astype(np.int64).tolist()
    return fingerprints


def are_same(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two fingerprints are of one vector up to rounding: no projection more than 0.002 apart."""
    return all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))


@lru_cache(maxsize=16)
def _get_directions(dimension: int) -> Float32s:
    """float32 [d, 8] of 1 and -1, the same for ever: fingerprints are stored."""
    bits = hashlib.shake_256(f"limen fingerprint {dimension}".encode()).digest(dimension * LENGTH // 8 + 1)
    signs = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))[: dimension * LENGTH]
    return np.ascontiguousarray(2 * signs.reshape(dimension, LENGTH).astype(np.float32) - 1)
