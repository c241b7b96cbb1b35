"""Fixed-point bins of scores whose edges are exact, so that counts at an edge are exact too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from common.array_types import Float32s, Int64s

TARGET_BITS = 20  # about a million bins; those that hold most scores together fit a second-level cache
FLOAT32_BITS = 24


@dataclass(frozen=True)
class ScoreBins:
    """Bin b holds scores in [edge(b), edge(b + 1)); the first and last also take what lies beyond.

    Scaling by a power of two and taking the floor are exact in float32, hence ``score >= edge(b)``
    iff its bin is at least b (for b > 0).
    """

    exponent: int
    base: int
    count: int

    @classmethod
    def cover(cls, low: float, high: float) -> ScoreBins:
        """About a million bins over a range of scores."""
        width = max(high - low, 2.0**-10)
        largest = max(abs(low), abs(high), 2.0**-10)
        exponent = min(
            TARGET_BITS - math.ceil(math.log2(width)), FLOAT32_BITS - 1 - math.ceil(math.log2(largest))
        )
        base = math.floor(low * 2.0**exponent)
        return cls(exponent, base, math.floor(high * 2.0**exponent) - base + 1)

    @property
    def scale(self) -> np.float32:
        """What a score is multiplied by before its floor is taken."""
        return np.float32(2.0**self.exponent)

    @property
    def lowest(self) -> np.float32:
        """The number of the first bin's lower edge, a whole number below 2^24."""
        return np.float32(self.base)

    def find(self, scores: ArrayLike) -> Int64s:
        """int64: the bin of each score."""
        scaled = np.floor(np.asarray(scores, dtype=np.float32) * self.scale).astype(np.int64)
        return np.asarray(np.clip(scaled - self.base, 0, self.count - 1))

    def compute_edges(self, bins: ArrayLike) -> Float32s:
        """float32: the lowest score of each bin."""
        return ((np.asarray(bins, dtype=np.int64) + self.base) / 2.0**self.exponent).astype(np.float32)
