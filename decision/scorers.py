"""From similarity to score, and the accept rule: what an operating point thresholds.

A score kind is one class and one line in ``decision/scorer_registry.py``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Score
from common.array_types import Bools, Float32s, Float64s, Int64s, RowIndices, Texts, UnitVectors
from common.errors import InputError
from decision.class_arrays import ClassArrays
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities

ROUNDING = 2e-5  # above the error of a float32 product of unit rows
BLOCK_ROWS = 256
Densities = ArrayLike | None


class Scorer(ABC):
    """A kind of score with its parameters; higher is more alike.

    Attributes:
        is_similarity: the score is the similarity itself, and no densities are needed.
        score: how the operating point and the report name this score.
    """

    is_similarity: ClassVar[bool] = False
    score: Score

    @property
    def density_key(self) -> str | None:
        """The key under which a gallery keeps its items' densities for this score; None if it needs none."""
        return None

    @classmethod
    @abstractmethod
    def open(cls, score: Score, cohort: UnitVectors | None, class_arrays: ClassArrays | None = None) -> Self:
        """Check parameters, cohort and arrays; see ``open_scorer``."""

    @abstractmethod
    def compute_densities(self, vectors: UnitVectors, labels: Texts | None = None) -> Float32s:
        """float32 [n], one number an item, the same whatever other items it is computed with.

        ``labels`` are the items' classes, text [n], for scores that leave these classes out of the cohort.
        """

    @abstractmethod
    def __call__(self, similarities: ArrayLike, a: Densities = None, b: Densities = None) -> Float32s:
        """float32 scores from similarities and the densities of both ends, broadcast together."""

    def list_contributions(
        self, similarities: ArrayLike, a: Densities = None, b: Densities = None
    ) -> dict[str, Float64s]:
        """What similarity, densities and a constant (``intercept``) add to the scores, in float64."""
        return {"similarity": np.asarray(similarities, dtype=np.float64)}


@dataclass(frozen=True)
class CosineScorer(Scorer):
    """The score is the similarity; densities are zeros, and ignored."""

    is_similarity = True
    score: Score = field(default_factory=lambda: Score(kind="cosine"))

    @classmethod
    def open(cls, score: Score, cohort: UnitVectors | None, class_arrays: ClassArrays | None = None) -> Self:
        return cls()

    def compute_densities(self, vectors: UnitVectors, labels: Texts | None = None) -> Float32s:
        return np.zeros(len(vectors), dtype=np.float32)

    def __call__(self, similarities: ArrayLike, a: Densities = None, b: Densities = None) -> Float32s:
        return np.asarray(similarities, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class CohortScorer(Scorer):
    """A score that compares both items with a cohort of vectors, float32 [c, d] unit rows.

    Attributes:
        required: names of its parameters.
    """

    required: ClassVar[tuple[str, ...]]
    score: Score
    cohort: UnitVectors

    @cached_property
    def density_key(self) -> str:
        return hashlib.sha256(self.score.model_dump_json().encode()).hexdigest()[:16]

    @classmethod
    def open(cls, score: Score, cohort: UnitVectors | None, class_arrays: ClassArrays | None = None) -> Self:
        missing = [name for name in cls.required if name not in score.parameters]
        if missing:
            raise InputError(f"A {score.kind} score needs the parameters {', '.join(missing)}.")
        cls._check_parameters(score)
        if cohort is None:
            raise InputError(
                f"A {score.kind} score needs its cohort of vectors; there is none beside the point."
            )
        check_cohort_hash(score, cohort)
        cls._check_size(score, len(cohort))
        return cls(score, cohort)

    @classmethod
    @abstractmethod
    def _check_parameters(cls, score: Score) -> None:
        """Raises InputError for values that make no score."""

    @classmethod
    @abstractmethod
    def _check_size(cls, score: Score, n: int) -> None:
        """Raises InputError unless a cohort of n vectors fits the parameters."""


@dataclass(frozen=True, eq=False)
class DensityScorer(CohortScorer):
    """The similarity less the local density around both items; the cohort is float32 [c, d] unit rows.

    ``score(a, b) = slope * s(a, b) - (density(a) + density(b)) / 2 + intercept`` where ``density(x)`` is a
    weighted sum of ``rho_K(x)``, the mean similarity of x to its K nearest items of a cohort. The form
    ``csls`` (Conneau et al. 2018, eq. 3) has one K, weight and slope 1; ``logistic`` has fitted ones, and its
    score is the log-odds of a match at prior 0.5. With the parameter ``pole`` both s and rho_K are taken as
    ``-log(pole - x)``: density then weighs the less the more alike two items are, as where distances are
    divided by those to the neighbours (Zelnik-Manor & Perona 2004, local scaling; Schnitzer et al. 2012,
    section 3.2).
    """

    required = ("neighbours", "weights", "slope", "intercept")

    @classmethod
    def _check_parameters(cls, score: Score) -> None:
        if np.min(np.asarray(score.parameters.get("pole", 2.0))) <= 1:
            raise InputError("The pole of a density score must be above 1, the highest similarity.")

    @classmethod
    def _check_size(cls, score: Score, n: int) -> None:
        check_neighbours(score, n)

    def compute_densities(self, vectors: UnitVectors, labels: Texts | None = None) -> Float32s:
        """float32 [n]: weighted mean similarities to the nearest cohort items."""
        neighbours, weights = [int(k) for k in self._get_numbers("neighbours")], self._get_numbers("weights")
        means = compute_neighbour_means(vectors, self.cohort, neighbours)
        return np.asarray((self._stretch(means) * weights).sum(axis=1), dtype=np.float32)

    def __call__(self, similarities: ArrayLike, a: Densities = None, b: Densities = None) -> Float32s:
        """float32 scores; computed in float64 and rounded once."""
        if a is None or b is None:
            raise TypeError("a density score needs the densities of both ends")
        density = (np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64)) / 2
        slope, intercept = self._get_numbers("slope")[0], self._get_numbers("intercept")[0]
        scores = self._stretch(np.asarray(similarities, dtype=np.float64)) * slope
        return np.asarray(scores - density + intercept, dtype=np.float32)

    def list_contributions(
        self, similarities: ArrayLike, a: Densities = None, b: Densities = None
    ) -> dict[str, Float64s]:
        return {
            "similarity": self._stretch(np.asarray(similarities, dtype=np.float64))
            * self._get_numbers("slope")[0],
            "query_density": np.asarray(a, dtype=np.float64) / -2,
            "item_density": np.asarray(b, dtype=np.float64) / -2,
            "intercept": self._get_numbers("intercept")[0],
        }

    def _stretch(self, similarities: Float64s) -> Float64s:
        if self.score.parameters.get("pole") is None:
            return similarities
        return stretch_near_pole(similarities, float(self._get_numbers("pole")[0]))

    def _get_numbers(self, name: str) -> Float64s:
        return np.atleast_1d(np.asarray(self.score.parameters[name], dtype=np.float64))


def check_cohort_hash(score: Score, cohort: UnitVectors) -> None:
    """Raises InputError for another cohort than the score's."""
    if hash_cohort(cohort) != score.cohort_sha256:
        raise InputError(
            f"The cohort of vectors has hash {hash_cohort(cohort)[:12]}, "
            f"the score was fitted with {str(score.cohort_sha256)[:12]}."
        )


def check_neighbours(score: Score, n: int) -> None:
    """Raises InputError where a cohort of n vectors is too small for the neighbours of a score."""
    if max(np.atleast_1d(np.asarray(score.parameters["neighbours"]))) > n:
        raise InputError(f"The cohort has {n} vectors, fewer than the neighbours to be averaged.")


def stretch_near_pole(similarities: Float64s, pole: float) -> Float64s:
    """``-log(pole - x)`` of similarities; the pole is above 1."""
    return np.asarray(-np.log(pole - similarities))


def compute_neighbour_means(
    vectors: UnitVectors,
    cohort: UnitVectors,
    neighbours: list[int],
    own: Int64s | None = None,
    cohort_codes: Int64s | None = None,
) -> Float64s:
    """``rho_K``: mean similarity to the K nearest cohort items, float64 [n, len(neighbours)].

    A float32 product proposes the neighbours, the one kernel gives their similarities: a row's means
    are the same bits whatever other rows it is computed with and whatever computes the product.

    Args:
        own: int64 [n], a class of each row whose cohort items are left out of its mean.
        cohort_codes: int64 [c], the classes of the cohort's items, where some are to be left out.
    """
    most = max(neighbours)
    means = np.empty((len(vectors), len(neighbours)))
    for first in range(0, len(vectors), BLOCK_ROWS):
        rows = vectors[first : first + BLOCK_ROWS]
        proposed = rows @ cohort.T
        if own is not None and cohort_codes is not None:
            proposed[own[first : first + BLOCK_ROWS, None] == cohort_codes[None, :]] = -np.inf
        limits = np.partition(proposed, len(cohort) - most, axis=1)[:, len(cohort) - most] - ROUNDING
        for offset, (row, similarities, limit) in enumerate(zip(rows, proposed, limits, strict=True)):
            near = cohort[np.flatnonzero((similarities >= limit) & (similarities > -np.inf))]
            nearest = -np.sort(-compute_pair_similarities(near, row[None, :]))[:most].astype(np.float64)
            sums = np.cumsum(nearest)
            means[first + offset] = [sums[min(k, len(near)) - 1] / min(k, len(near)) for k in neighbours]
    return means


def iterate_neighbours(
    vectors: UnitVectors, cohort: UnitVectors, most: int
) -> Iterator[tuple[RowIndices, Float64s]]:
    """Of each vector at least its ``most`` nearest cohort items: their rows and similarities, nearest first.

    They are found as in ``compute_neighbour_means``.
    """
    for first in range(0, len(vectors), BLOCK_ROWS):
        rows = vectors[first : first + BLOCK_ROWS]
        proposed = rows @ cohort.T
        limits = np.partition(proposed, len(cohort) - most, axis=1)[:, len(cohort) - most] - ROUNDING
        for row, similarities, limit in zip(rows, proposed, limits, strict=True):
            near = np.flatnonzero(similarities >= limit)
            exact = compute_pair_similarities(cohort[near], row[None, :]).astype(np.float64)
            order = np.argsort(-exact)
            yield near[order], exact[order]


def accepts(scores: ArrayLike, threshold: float) -> Bools:
    """True where ``score >= threshold``, both as float32: a score exactly at the threshold is accepted."""
    return np.asarray(np.asarray(scores, dtype=np.float32) >= np.float32(threshold))


def count_rejected(ascending_scores: ArrayLike, thresholds: ArrayLike) -> Int64s:
    """int64, the shape of ``thresholds``: how many of the scores each does not accept (``accepts``)."""
    scores, limits = (np.asarray(values, dtype=np.float32) for values in (ascending_scores, thresholds))
    return np.asarray(np.searchsorted(scores, limits, side="left"))


def count_accepted(ascending_scores: ArrayLike, thresholds: ArrayLike) -> Int64s:
    """int64, the shape of ``thresholds``: how many of the scores each accepts."""
    return np.size(ascending_scores) - count_rejected(ascending_scores, thresholds)


def count_reached(scores: ArrayLike, ascending_thresholds: ArrayLike) -> Int64s:
    """int64, the shape of ``scores``: how many of the thresholds accept each."""
    reached, limits = (np.asarray(values, dtype=np.float32) for values in (scores, ascending_thresholds))
    return np.asarray(np.searchsorted(limits, reached, side="right"))
