"""From similarity to score: what an operating point thresholds.

``cosine`` is the similarity. ``density`` takes off how crowded the space is around both items:
``score(a, b) = slope * s(a, b) - (density(a) + density(b)) / 2 + intercept`` where ``density(x)`` is a
weighted sum of ``rho_K(x)``, the mean similarity of x to its K nearest items of a cohort. The form
``csls`` (Conneau et al. 2018, eq. 3) has one K, weight and slope 1; ``logistic`` has fitted ones, and
its score is the log-odds of a match at prior 0.5. With the parameter ``pole`` both s and rho_K are
looked at as ``-log(pole - x)``: a crowd then weighs the less the more alike two items are, as where
distances are divided by those to the neighbours (Zelnik-Manor & Perona 2004, local scaling; Schnitzer
et al. 2012, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Score
from common.array_types import Bools, Float32s, Float64s, UnitVectors
from common.errors import InputError
from embeddings.hashes import cohort_hash
from embeddings.similarity import pair_similarities

DENSITY_PARAMETERS = ("neighbours", "weights", "slope", "intercept")
ROUNDING = 2e-5  # above the error of a float32 product of unit rows
BLOCK_ROWS = 256


class Scorer(Protocol):
    """A kind of score with its parameters; higher is more alike."""

    @property
    def score(self) -> Score:
        """How the operating point and the report name this score."""

    def densities(self, vectors: UnitVectors) -> Float32s:
        """float32 [n], one number an item, the same whatever other items it is computed with."""

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> Float32s:
        """float32 scores from similarities and the densities of both ends, broadcast together."""


@dataclass(frozen=True)
class CosineScorer:
    """The kind ``cosine``: the score is the similarity."""

    @property
    def score(self) -> Score:
        """How the operating point and the report name this score."""
        return Score(kind="cosine")

    def densities(self, vectors: UnitVectors) -> Float32s:
        """float32 [n]: zeros, for nothing is looked at but the pair itself."""
        return np.zeros(len(vectors), dtype=np.float32)

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> Float32s:
        """float32 scores from similarities of any shape; local densities are not looked at."""
        return np.asarray(similarities, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class DensityScorer:
    """The kind ``density`` with its parameters and its cohort, float32 [c, d] unit rows."""

    score: Score
    cohort: UnitVectors

    def densities(self, vectors: UnitVectors) -> Float32s:
        """float32 [n]: weighted mean similarities to the nearest cohort items."""
        neighbours, weights = self._neighbours(), self._numbers("weights")
        means = neighbour_means(vectors, self.cohort, neighbours)
        return np.asarray((self._bent(means) * weights).sum(axis=1), dtype=np.float32)

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> Float32s:
        """float32 scores; computed in float64 and rounded once."""
        if densities_a is None or densities_b is None:
            raise TypeError("a density score needs the densities of both ends")
        a, b = np.asarray(densities_a, dtype=np.float64), np.asarray(densities_b, dtype=np.float64)
        slope, intercept = self._numbers("slope")[0], self._numbers("intercept")[0]
        scores = self._bent(np.asarray(similarities, dtype=np.float64)) * slope
        return np.asarray(scores - (a + b) / 2 + intercept, dtype=np.float32)

    def _bent(self, similarities: Float64s) -> Float64s:
        pole = self.score.parameters.get("pole")
        return similarities if pole is None else bent(similarities, float(self._numbers("pole")[0]))

    def _neighbours(self) -> list[int]:
        return [int(k) for k in self._numbers("neighbours")]

    def _numbers(self, name: str) -> Float64s:
        return np.atleast_1d(np.asarray(self.score.parameters[name], dtype=np.float64))


def bent(similarities: Float64s, pole: float) -> Float64s:
    """``-log(pole - x)`` of similarities; the pole is above 1."""
    return np.asarray(-np.log(pole - similarities))


def scorer_of(score: Score, cohort: UnitVectors | None = None) -> Scorer:
    """The scorer an operating point names.

    Args:
        score: kind, form, parameters and the cohort's hash.
        cohort: float32 [c, d], for ``density`` the vectors with that hash.

    Raises:
        InputError: parameters are missing, or the cohort is missing or another one.
    """
    if score.kind == "cosine":
        return CosineScorer()
    missing = [name for name in DENSITY_PARAMETERS if name not in score.parameters]
    if missing:
        raise InputError(f"A density score needs the parameters {', '.join(missing)}.")
    if np.min(np.asarray(score.parameters.get("pole", 2.0))) <= 1:
        raise InputError("The pole of a density score must be above 1, the highest similarity.")
    if cohort is None:
        raise InputError("A density score needs its cohort of vectors; there is none beside the point.")
    if cohort_hash(cohort) != score.cohort_sha256:
        raise InputError(
            f"The cohort of vectors has hash {cohort_hash(cohort)[:12]}, "
            f"the score was fitted with {str(score.cohort_sha256)[:12]}."
        )
    if max(np.atleast_1d(np.asarray(score.parameters["neighbours"]))) > len(cohort):
        raise InputError(f"The cohort has {len(cohort)} vectors, fewer than the neighbours to be averaged.")
    return DensityScorer(score, cohort)


def neighbour_means(vectors: UnitVectors, cohort: UnitVectors, neighbours: list[int]) -> Float64s:
    """``rho_K``: mean similarity to the K nearest cohort items, float64 [n, len(neighbours)].

    A float32 product proposes the neighbours, the one kernel gives their similarities: a row's means
    are the same bits whatever other rows it is computed with and whatever computes the product.
    """
    most = max(neighbours)
    means = np.empty((len(vectors), len(neighbours)))
    for first in range(0, len(vectors), BLOCK_ROWS):
        rows = vectors[first : first + BLOCK_ROWS]
        proposed = rows @ cohort.T
        limits = np.partition(proposed, len(cohort) - most, axis=1)[:, len(cohort) - most] - ROUNDING
        for offset, (row, similarities, limit) in enumerate(zip(rows, proposed, limits, strict=True)):
            near = cohort[np.flatnonzero(similarities >= limit)]
            nearest = -np.sort(-pair_similarities(near, row[None, :]))[:most].astype(np.float64)
            sums = np.cumsum(nearest)
            means[first + offset] = [sums[k - 1] / k for k in neighbours]
    return means


def accepts(scores: ArrayLike, threshold: float) -> Bools:
    """True where ``score >= threshold``, both as float32: a score exactly at the threshold is accepted."""
    return np.asarray(np.asarray(scores, dtype=np.float32) >= np.float32(threshold))
