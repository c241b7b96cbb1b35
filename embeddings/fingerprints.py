"""Fingerprints of vectors: a few whole numbers by which a vector is known again, up to rounding."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

import numpy as np

from common.array_types import Float32s

LENGTH = 8
QUANTUM = 2e-4
TOLERANCE = 10  # quanta
LARGEST = 32_767
_PACK = struct.Struct(f">{LENGTH}h")
_DIGITS = 2 * _PACK.size


def compute_fingerprints(vectors: Float32s) -> list[str]:
    """The fingerprint of each row [n, d], in hexadecimal digits.

    It is the row's projections, at length one, on eight fixed directions of signs, in units of 2e-4. Those of
    a difference of length r have a standard deviation of r: copies that were rounded to 16 bits or to four
    decimals are the same by ``are_same``, and of vectors 0.01 apart (a cosine of 0.99995) in many dimensions
    fewer than one pair in a million is. A vector cannot be computed back from it. A mean of vectors that
    cancel out, which has no direction, has the fingerprint of zeros.
    """
    projections = vectors @ _get_directions(vectors.shape[1])
    if len(vectors) == 1:  # a third of the time of arrays
        row = vectors[0]
        length = sqrt(row.dot(row))
        scale = 1 / (QUANTUM * length) if length else 0.0
        numbers = [round(value * scale) for value in projections[0].tolist()]
        return [_PACK.pack(*(max(-LARGEST, min(LARGEST, number)) for number in numbers)).hex()]
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scales = 1 / (QUANTUM * np.where(lengths == 0, np.inf, lengths))
    rounded = np.rint(projections * scales[:, None])
    digits = np.clip(rounded, -LARGEST, LARGEST).astype(">i2").tobytes().hex()
    return [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]


def read_fingerprint(digits: str) -> tuple[int, ...]:
    """The eight numbers of a fingerprint."""
    return _PACK.unpack(bytes.fromhex(digits))


def are_same(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two fingerprints are of one vector up to rounding: no projection more than 0.002 apart."""
    return all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))


@lru_cache(maxsize=16)
def _get_directions(dimension: int) -> Float32s:
    """float32 [d, 8] of 1 and -1, the same for ever: fingerprints are stored."""
    bits = hashlib.shake_256(f"limen fingerprint {dimension}".encode()).digest(dimension * LENGTH // 8 + 1)
    signs = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))[: dimension * LENGTH]
    return np.ascontiguousarray(2 * signs.reshape(dimension, LENGTH).astype(np.float32) - 1)
