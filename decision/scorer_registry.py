"""The kinds of score by name; a kind is one class and one line here."""

from __future__ import annotations

from api_schemas.operating_point import Score, ScoreKind
from common.array_types import UnitVectors
from decision.class_arrays import ClassArrays
from decision.class_evidence import EvidenceScorer
from decision.conj_norm import ConjNormScorer
from decision.scorers import CosineScorer, DensityScorer, Scorer

SCORERS: dict[ScoreKind, type[Scorer]] = {
    "cosine": CosineScorer,
    "density": DensityScorer,
    "conjnorm": ConjNormScorer,
    "evidence": EvidenceScorer,
}


def open_scorer(
    score: Score, cohort: UnitVectors | None = None, class_arrays: ClassArrays | None = None
) -> Scorer:
    """The scorer an operating point names, with its cohort, float32 [c, d], and the arrays of its class
    model, for kinds that need them.

    Raises:
        InputError: parameters are missing, or the cohort or the arrays are missing or not those that it
            was fitted with.
    """
    return SCORERS[score.kind].open(score, cohort, class_arrays)


def needs_cohort(score: Score) -> bool:
    """Whether points of this score have a cohort of vectors beside them."""
    return score.cohort_sha256 is not None


def needs_class_arrays(score: Score) -> bool:
    """Whether points of this score have the arrays of a class model beside them."""
    return score.class_model_sha256 is not None
