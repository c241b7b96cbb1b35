"""Fit the score kind ``conjnorm``: which norm, and how much a density under class prototypes counts."""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import Score
from decision.conj_norm import ConjNormScorer
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from evaluation.calibration.fit_probability import fit_log_odds
from evaluation.calibration.impostor_scores import sample_impostors
from evaluation.calibration.scores.density_score import DensityFitter
from evaluation.pairs.pairs import arrange

NORMS = (2.0, 2.5)  # the authors search 1.1 to 4; 2.5 is theirs for CIFAR-100, 2 is cosine's own
TEMPERATURE = 0.08  # theirs
IMPOSTORS = 400_000
STREAM = 8  # of random impostor pairs
LEAST_CLASSES = 10  # of the cohort: prototypes


class ConjNormFitter(DensityFitter):
    """The kind ``conjnorm`` (``choose_score.ScoreFitter``); its cohort is drawn as that of ``density``."""

    def find_obstacle(
        self, fit: EmbeddingSet, cohort: EmbeddingSet | None, others: EmbeddingSet | None
    ) -> str | None:
        """The reason that prototypes cannot be had, or would be wrong where they are applied."""
        if cohort is not None and len(cohort.classes) < LEAST_CLASSES:
            return f"a cohort of {len(cohort.classes)} classes has fewer than {LEAST_CLASSES} prototypes"
        return super().find_obstacle(fit, cohort, others)

    def fit_forms(self, fit: EmbeddingSet, cohort: EmbeddingSet, seed: int) -> list[Scorer]:
        """One for each norm."""
        return [fit_conj_norm(fit, cohort, norm, seed) for norm in NORMS]


def fit_conj_norm(fit: EmbeddingSet, cohort: EmbeddingSet, norm: float, seed: int = 0) -> ConjNormScorer:
    """Log-odds of a match at prior 0.5, linear in the similarity and the mean log density of both ends."""
    densities = _build_scorer(cohort, norm, 1.0, 1.0, 0.0).compute_densities(fit.vectors).astype(np.float64)
    pairs = arrange(fit, densities=densities)
    ordered = pairs.a.densities
    assert ordered is not None
    genuine = pairs.collect_genuine()
    a, b, scores = sample_impostors(pairs, IMPOSTORS, seed, STREAM)
    similarities = np.concatenate([genuine.scores, scores]).astype(np.float64)
    first = np.concatenate([ordered[genuine.a], ordered[a]])
    second = np.concatenate([ordered[genuine.b], ordered[b]])
    slope, weight, intercept = fit_log_odds(np.stack([similarities, -(first + second) / 2]), len(genuine))
    return _build_scorer(cohort, norm, slope, weight, intercept)


def _build_scorer(
    cohort: EmbeddingSet, norm: float, slope: float, weight: float, intercept: float
) -> ConjNormScorer:
    score = Score(
        kind="conjnorm",
        form=f"norm {norm:g}",
        parameters={
            "classes": cohort.codes.tolist(),
            "norm": norm,
            "temperature": TEMPERATURE,
            "weight": weight,
            "slope": slope,
            "intercept": intercept,
        },
        cohort_sha256=hash_cohort(cohort.vectors),
    )
    return ConjNormScorer(score, cohort.vectors)
