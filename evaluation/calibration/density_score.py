"""Fitting the score kind ``density``: scores that know how crowded the space is around both items.

Why one K and one weight: with several K the means are nearly collinear, their weights take opposite
signs and change from sample to sample, and on Omniglot and CLINC150 nothing is gained by them. K is
a twentieth of the cohort and at most 200: with 4,096 Omniglot items 200 did better than 20, 50 or 100.

Why logarithms of 1 less the similarity: with a weight that is the same at every similarity a density
that is right at FAR 1 % takes off too much near 1, where unknown queries are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from api_schemas.operating_point import Score
from common.progress import Track, silent
from decision.scorers import CosineScorer, DensityScorer, Scorer, bent
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import cohort_hash
from evaluation.calibration.bootstrap_bounds import resampled_classes
from evaluation.calibration.impostor_tail import sampled_rows
from evaluation.calibration.logistic_regression import logistic
from evaluation.metrics.opis import Settings
from evaluation.metrics.split_half_opis import Debiased, debiased
from evaluation.metrics.threshold_grid import grid_of
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.sweep import sweep
from evaluation.pairs.threshold_levels import levels_of

COHORT_ITEMS = 4096
NEIGHBOURS = 200
POLE = 1.01  # just above the highest similarity, so that equal items have a finite score
COHORT_PER_NEIGHBOUR = 20
LEAST_COHORT = 200  # below it rho is a mean of fewer than ten
LEAST_SPLIT_CLASSES = 60  # embeddings alone: three parts of at least 20 classes
IMPOSTORS = 400_000
CLEARLY = 0.975  # quantile over resampled classes at which the difference must still be a gain

ScoreChoice = Literal["auto", "cosine", "density"]


@dataclass(frozen=True)
class ChosenScore:
    """A scorer, the cohort it needs, and in words why it was taken."""

    scorer: Scorer
    cohort: EmbeddingSet | None
    reason: str


def scored_pairs(items: EmbeddingSet, scorer: Scorer) -> Pairs:
    """All pairs of a set under a score, densities computed where it needs them."""
    if isinstance(scorer, CosineScorer):
        return arrange(items, scorer=scorer)
    return arrange(items, scorer=scorer, densities=scorer.densities(items.vectors))


def choose_score(
    fit: EmbeddingSet,
    choice: ScoreChoice,
    cohort: EmbeddingSet | None,
    others: EmbeddingSet | None = None,
    *,
    seed: int = 0,
    track: Track = silent,
) -> ChosenScore:
    """The score to threshold.

    ``auto`` takes ``density`` where its debiased OPIS over log-FAR on the fit classes is lower than
    cosine's by more than resampling those classes explains; a tie goes to cosine. Both are measured on
    the same classes, so it is their difference that is resampled: two separate intervals of 25 classes
    overlap even where every class gained. ``csls`` is taken where it is clearly lower than ``logistic``,
    which tells unknown queries apart better.

    Args:
        fit: items of the classes the score is fitted and compared on.
        choice: what was asked for.
        cohort: training items, of classes that occur neither in ``fit`` nor in ``others``.
        others: further items the score will be applied to: the proof's.
    """
    cosine = CosineScorer()
    if choice == "cosine":
        return ChosenScore(cosine, None, "score: cosine, as asked")
    obstacle = _obstacle(fit, cohort, others)
    if obstacle is not None or cohort is None:
        return ChosenScore(cosine, None, f"score: cosine, because {obstacle}")
    part = draw_cohort(cohort, seed)
    forms = [fit_csls(part), fit_logistic(fit, part, seed)]
    measured = [_log_far_opis(scored_pairs(fit, form), seed, track) for form in forms]
    if measured[0] is None or measured[1] is None:
        return ChosenScore(cosine, None, "score: cosine, because classes are too small to compare scores by")
    place = 0 if _clearly_lower(measured[0], measured[1], seed) else 1
    best, found = forms[place], measured[place]
    if choice == "density":
        return ChosenScore(best, part, f"score: density ({best.score.form}), as asked")
    plain = _log_far_opis(arrange(fit), seed, track)
    assert found is not None
    assert plain is not None
    values = f"{found.values[0]:.2g} against cosine's {plain.values[0]:.2g}"
    if not _clearly_lower(found, plain, seed):
        return ChosenScore(
            cosine, None, f"score: cosine; density's debiased log-FAR OPIS is not clearly lower, {values}"
        )
    return ChosenScore(
        best, part, f"score: density ({best.score.form}); its debiased log-FAR OPIS is lower, {values}"
    )


def split_for_density(
    items: EmbeddingSet, seed: int
) -> tuple[EmbeddingSet, EmbeddingSet, EmbeddingSet] | None:
    """Cohort, calibration and proof of an embeddings file: thirds of its classes; None for too few."""
    if len(items.classes) < LEAST_SPLIT_CLASSES:
        return None
    thirds = np.array_split(np.random.default_rng([seed, 3]).permutation(items.classes), 3)
    parts = [items.of_classes(third) for third in thirds]
    return parts[0], parts[1], parts[2]


def draw_cohort(cohort: EmbeddingSet, seed: int) -> EmbeddingSet:
    """At most COHORT_ITEMS random items, in their order."""
    if len(cohort) <= COHORT_ITEMS:
        return cohort
    return cohort.subset(np.sort(np.random.default_rng([seed, 4]).permutation(len(cohort))[:COHORT_ITEMS]))


def fit_csls(cohort: EmbeddingSet) -> DensityScorer:
    """``s - (rho_K(a) + rho_K(b)) / 2`` (Conneau et al. 2018, eq. 3): nothing to fit."""
    return _scorer(cohort, "csls", 1.0, 1.0, 0.0)


def fit_logistic(fit: EmbeddingSet, cohort: EmbeddingSet, seed: int = 0) -> DensityScorer:
    """Log-odds of a match at prior 0.5, linear in ``-log(POLE - x)`` of the similarity and the densities.

    Logistic regression on all genuine pairs of ``fit`` and a random part of its impostor pairs, each
    side weighing one half.
    """
    plain = fit_csls(cohort)
    densities = bent(plain.densities(fit.vectors).astype(np.float64), POLE)
    pairs = arrange(fit, densities=densities)
    ordered = pairs.a.densities
    assert ordered is not None
    genuine = pairs.genuine()
    rows, scores = sampled_rows(pairs, seed)
    i, j = np.nonzero(np.isfinite(scores))
    drawn = np.random.default_rng([seed, 6]).permutation(len(i))[:IMPOSTORS]
    i, j = i[drawn], j[drawn]
    similarities = np.concatenate([genuine.scores, scores[i, j]]).astype(np.float64)
    first = np.concatenate([ordered[genuine.a], ordered[rows[i]]])
    second = np.concatenate([ordered[genuine.b], ordered[j]])
    crowd = (first + second) / 2
    n, m = len(genuine.scores), len(i)
    targets = np.concatenate([np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))])
    weights = np.concatenate([np.full(n, 0.5 / n), np.full(m, 0.5 / m)])
    design = np.stack([bent(similarities, POLE), -crowd, np.ones(n + m)])
    slope, weight, intercept = logistic(design, targets, weights)
    return _scorer(cohort, "logistic", slope, weight, intercept, pole=POLE)


def _scorer(
    cohort: EmbeddingSet,
    form: Literal["csls", "logistic"],
    slope: float,
    weight: float,
    intercept: float,
    **more: float,
) -> DensityScorer:
    neighbours = max(1, min(NEIGHBOURS, len(cohort) // COHORT_PER_NEIGHBOUR))
    score = Score(
        kind="density",
        form=form,
        parameters={
            "neighbours": [neighbours],
            "weights": [weight],
            "slope": slope,
            "intercept": intercept,
            **more,
        },
        cohort_sha256=cohort_hash(cohort.vectors),
    )
    return DensityScorer(score, cohort.vectors)


def _obstacle(fit: EmbeddingSet, cohort: EmbeddingSet | None, others: EmbeddingSet | None) -> str | None:
    if cohort is None:
        return "there are no training items to measure density against"
    if len(cohort) < LEAST_COHORT:
        return f"a cohort of {len(cohort)} training items is smaller than {LEAST_COHORT}"
    for items in (fit, others):
        if items is not None and len(np.intersect1d(items.classes, cohort.classes)):
            return "training classes occur among the classes it would be applied to, whose kin count as crowd"
    if not (np.bincount(fit.codes) > 1).any():
        return "no class has two items to fit a density score on"
    return None


def _clearly_lower(one: Debiased, other: Debiased, seed: int) -> bool:
    """Whether one score's value is lower on the same classes beyond what resampling them explains."""
    differences = one.by_class[0] - other.by_class[0]
    drawn = resampled_classes(len(differences), seed) @ differences
    return bool(np.quantile(drawn, CLEARLY) < 0)


def _log_far_opis(pairs: Pairs, seed: int, track: Track) -> Debiased | None:
    """The debiased OPIS over log-FAR, one grid, with each class's part."""
    settings = Settings()
    found = sweep(pairs, deepest_far=settings.far[1], per_query=False, track=track)
    ascending = np.sort(grid_of(found, settings.far, settings.grid).log_far)
    levels = levels_of(found, ascending)
    return debiased(pairs, levels, np.zeros(len(ascending), dtype=np.int64), settings.c, seed, track)
