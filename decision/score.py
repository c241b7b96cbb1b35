"""From similarity to score: what an operating point thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from api_schemas.operating_point import Score


@dataclass(frozen=True)
class CosineScorer:
    """The kind ``cosine``: the score is the similarity."""

    @property
    def score(self) -> Score:
        """How the operating point and the report name this score."""
        return Score(kind="cosine")

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """float32 scores from similarities of any shape; local densities are not looked at."""
        return np.asarray(similarities, dtype=np.float32)
