"""Fit the score kind ``density``: scores corrected by the local density around both items.

Why one K and one weight: with several K the means are nearly collinear, their weights take opposite
signs and change from sample to sample, and on Omniglot and CLINC150 nothing is gained by them. K is
a twentieth of the cohort and at most 200: with 4,096 Omniglot items 200 did better than 20, 50 or 100.

Why logarithms of 1 less the similarity: with a weight that is the same at every similarity a density
that is right at FAR 1 % takes off too much near 1, where unknown queries are separated.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from api_schemas.operating_point import Score
from decision.scorers import DensityScorer, Scorer, stretch_near_pole
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from evaluation.calibration.fit_probability import fit_log_odds
from evaluation.calibration.impostor_scores import sample_impostors
from evaluation.pairs.pairs import arrange

COHORT_ITEMS = 4096
NEIGHBOURS = 200
POLE = 1.01  # just above the highest similarity, so that equal items have a finite score
COHORT_PER_NEIGHBOUR = 20
LEAST_COHORT = 200  # below it rho is a mean of fewer than ten
IMPOSTORS = 400_000
STREAM = 6  # of random impostor pairs


class DensityFitter:
    """The kind ``density`` (``choose_score.ScoreFitter``)."""

    def find_obstacle(
        self, fit: EmbeddingSet, cohort: EmbeddingSet | None, others: EmbeddingSet | None
    ) -> str | None:
        """The reason that densities cannot be fitted, or would be wrong where they are applied."""
        if cohort is None:
            return "there are no training items to measure density against"
        if len(cohort) < LEAST_COHORT:
            return f"a cohort of {len(cohort)} training items is smaller than {LEAST_COHORT}"
        for items in (fit, others):
            if items is not None and len(np.intersect1d(items.classes, cohort.classes)):
                return (
                    "the cohort shares classes with the evaluated data, which inflates its density estimate"
                )
        if not (np.bincount(fit.codes) > 1).any():
            return "no class has two items to fit a density score on"
        return None

    def draw_cohort(self, training: EmbeddingSet, seed: int) -> EmbeddingSet:
        """At most COHORT_ITEMS random items, in their order."""
        if len(training) <= COHORT_ITEMS:
            return training
        drawn = np.random.default_rng([seed, 4]).permutation(len(training))[:COHORT_ITEMS]
        return training.subset(np.sort(drawn))

    def fit_forms(self, fit: EmbeddingSet, cohort: EmbeddingSet, seed: int) -> list[Scorer]:
        """``csls`` and ``logistic``, which separates unknown queries better."""
        return [fit_csls(cohort), fit_logistic(fit, cohort, seed)]


def fit_csls(cohort: EmbeddingSet) -> DensityScorer:
    """``s - (rho_K(a) + rho_K(b)) / 2`` (Conneau et al. 2018, eq. 3): nothing to fit."""
    return _build_scorer(cohort, "csls", 1.0, slope=1.0, intercept=0.0)


def fit_logistic(fit: EmbeddingSet, cohort: EmbeddingSet, seed: int = 0) -> DensityScorer:
    """Log-odds of a match at prior 0.5, linear in ``-log(POLE - x)`` of the similarity and the densities.

    Logistic regression on all genuine pairs of ``fit`` and a random part of its impostor pairs, each
    side weighing one half.
    """
    plain = fit_csls(cohort).compute_densities(fit.vectors)
    pairs = arrange(fit, densities=stretch_near_pole(plain.astype(np.float64), POLE))
    densities = pairs.a.densities
    assert densities is not None
    genuine = pairs.collect_genuine()
    a, b, scores = sample_impostors(pairs, IMPOSTORS, seed, STREAM)
    similarities = np.concatenate([genuine.scores, scores]).astype(np.float64)
    first = np.concatenate([densities[genuine.a], densities[a]])
    second = np.concatenate([densities[genuine.b], densities[b]])
    features = np.stack([stretch_near_pole(similarities, POLE), -(first + second) / 2])
    slope, weight, intercept = fit_log_odds(features, len(genuine))
    return _build_scorer(cohort, "logistic", weight, slope=slope, intercept=intercept, pole=POLE)


def _build_scorer(
    cohort: EmbeddingSet, form: Literal["csls", "logistic"], weight: float, **more: float
) -> DensityScorer:
    neighbours = max(1, min(NEIGHBOURS, len(cohort) // COHORT_PER_NEIGHBOUR))
    parameters: dict[str, Any] = {"neighbours": [neighbours], "weights": [weight]} | more
    digest = hash_cohort(cohort.vectors)
    score = Score(kind="density", form=form, parameters=parameters, cohort_sha256=digest)
    return DensityScorer(score, cohort.vectors)
