"""From similarity to score, and the accept rule: what an operating point thresholds.

A score kind is one class and one line in ``SCORERS``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Score, ScoreKind
from common.array_types import Bools, Float32s, UnitVectors
from decision.density_scorer import DensityScorer


class Scorer(Protocol):
    """A kind of score with its parameters; higher is more alike.

    Attributes:
        kind: as operating points name it.
        is_similarity: the score is the similarity itself, and no densities are needed.
        needs_cohort: a cohort of vectors lies beside its operating points.
    """

    kind: ClassVar[ScoreKind]
    is_similarity: ClassVar[bool]
    needs_cohort: ClassVar[bool]

    @classmethod
    def open(cls, score: Score, cohort: UnitVectors | None) -> Scorer:
        """Check parameters and cohort; see ``open_scorer``."""

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

    kind: ClassVar[ScoreKind] = "cosine"
    is_similarity: ClassVar[bool] = True
    needs_cohort: ClassVar[bool] = False

    @classmethod
    def open(cls, score: Score, cohort: UnitVectors | None) -> CosineScorer:
        """There is nothing to check."""
        return cls()

    @property
    def score(self) -> Score:
        """How the operating point and the report name this score."""
        return Score(kind="cosine")

    def densities(self, vectors: UnitVectors) -> Float32s:
        """float32 [n]: zeros, for a score of the pair alone."""
        return np.zeros(len(vectors), dtype=np.float32)

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> Float32s:
        """float32 scores from similarities of any shape; densities are ignored."""
        return np.asarray(similarities, dtype=np.float32)


SCORERS: dict[ScoreKind, type[Scorer]] = {scorer.kind: scorer for scorer in (CosineScorer, DensityScorer)}


def open_scorer(score: Score, cohort: UnitVectors | None = None) -> Scorer:
    """The scorer an operating point names.

    Args:
        score: kind, form, parameters and the cohort's hash.
        cohort: float32 [c, d], for kinds that need one the vectors with that hash.

    Raises:
        InputError: parameters are missing, or the cohort is missing or another one.
    """
    return SCORERS[score.kind].open(score, cohort)


def needs_cohort(score: Score) -> bool:
    """Whether a cohort of vectors lies beside a point of this score."""
    return SCORERS[score.kind].needs_cohort


def density_key(score: Score) -> str | None:
    """The key under which a gallery keeps its items' densities for a score; None if it needs none."""
    if SCORERS[score.kind].is_similarity:
        return None
    return hashlib.sha256(score.model_dump_json().encode()).hexdigest()[:16]


def accepts(scores: ArrayLike, threshold: float) -> Bools:
    """True where ``score >= threshold``, both as float32: a score exactly at the threshold is accepted."""
    return np.asarray(np.asarray(scores, dtype=np.float32) >= np.float32(threshold))
