"""The kind of score to threshold: as requested, or the one that holds most evenly over classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from api_schemas.operating_point import ScoreChoice, ScoreKind
from common.progress import Track, silent
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.scores.conj_norm_score import ConjNormFitter
from evaluation.calibration.scores.density_score import DensityFitter
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.metrics.split_half_opis import DebiasedOpis, debias_log_far
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs

CLEARLY = 0.975  # quantile over resampled classes at which the difference must still be a gain
LEAST_SPLIT_CLASSES = 60  # embeddings alone: three parts of at least 20 classes


class ScoreFitter(Protocol):
    """A kind of score that is fitted on a cohort before it can be thresholded."""

    def find_obstacle(
        self, fit: EmbeddingSet, cohort: EmbeddingSet | None, others: EmbeddingSet | None
    ) -> str | None:
        """The reason that the score cannot be fitted, or would be wrong where it is applied; else None."""

    def draw_cohort(self, training: EmbeddingSet, seed: int) -> EmbeddingSet:
        """The training items that a point of this score keeps."""

    def fit_forms(self, fit: EmbeddingSet, cohort: EmbeddingSet, seed: int) -> list[Scorer]:
        """Scorers of this kind; the last is taken unless an earlier one holds clearly more evenly."""


FITTERS: dict[ScoreKind, ScoreFitter] = {"density": DensityFitter(), "conjnorm": ConjNormFitter()}
"""Kinds that ``auto`` tries beside ``cosine``; a new kind is a file with its fitter and a line here."""


@dataclass(frozen=True)
class ChosenScore:
    """A scorer, the cohort it needs, and in words why it was taken."""

    scorer: Scorer
    cohort: EmbeddingSet | None
    reason: str


def choose_score(
    fit: EmbeddingSet,
    choice: ScoreChoice,
    cohort: EmbeddingSet | None,
    others: EmbeddingSet | None = None,
    *,
    seed: int = 0,
    track: Track = silent,
) -> ChosenScore:
    """The score to threshold (docs/specification.md, Calibration, Choice of score).

    ``auto`` takes a fitted kind where its debiased OPIS over log-FAR on the fit classes is lower than
    cosine's by more than resampling those classes explains; a tie goes to cosine. Both are measured on
    the same classes, so it is their difference that is resampled: two separate intervals of 25 classes
    overlap even where every class gained. Forms of one kind are chosen between by the same rule.

    Args:
        fit: items of the classes the score is fitted and compared on.
        choice: a kind, or ``auto``.
        cohort: training items, of classes that occur neither in ``fit`` nor in ``others``.
        others: further items the score will be applied to: the proof's.
    """
    cosine = CosineScorer()
    if choice == "cosine":
        return ChosenScore(cosine, None, "score: cosine, as requested")
    best: ChosenScore | None = None
    plain: DebiasedOpis | None = None
    reference: DebiasedOpis | None = None
    refusals = []
    for kind in FITTERS if choice == "auto" else [choice]:
        fitted = _fit_kind(FITTERS[kind], fit, cohort, others, seed, track)
        if isinstance(fitted, str):
            refusals.append(f", because {fitted}")
            continue
        scorer, opis, drawn = fitted
        name = f"{kind} ({scorer.score.form})"
        if choice != "auto":
            return ChosenScore(scorer, drawn, f"score: {name}, as requested")
        plain = plain or _measure_log_far_opis(fit, cosine, seed, track)
        assert plain is not None
        values = f"{opis.values[0]:.2g} against cosine's {plain.values[0]:.2g}"
        if _is_clearly_lower(opis, reference or plain, seed):
            reason = f"score: {name}; its debiased log-FAR OPIS is lower, {values}"
            best, reference = ChosenScore(scorer, drawn, reason), opis
        else:
            refusals.append(f"; {kind}'s debiased log-FAR OPIS is not clearly lower, {values}")
    return best or ChosenScore(cosine, None, f"score: cosine{''.join(dict.fromkeys(refusals))}")


def split_classes_in_three(
    items: EmbeddingSet, seed: int
) -> tuple[EmbeddingSet, EmbeddingSet, EmbeddingSet] | None:
    """Cohort, fit and proof of an embeddings file: thirds of its classes; None for too few."""
    if len(items.classes) < LEAST_SPLIT_CLASSES:
        return None
    thirds = np.array_split(np.random.default_rng([seed, 3]).permutation(items.classes), 3)
    cohort, fit, proof = (items.select_classes(third) for third in thirds)
    return cohort, fit, proof


def _fit_kind(
    fitter: ScoreFitter,
    fit: EmbeddingSet,
    training: EmbeddingSet | None,
    others: EmbeddingSet | None,
    seed: int,
    track: Track,
) -> tuple[Scorer, DebiasedOpis, EmbeddingSet] | str:
    """The best form of a kind, its OPIS and its cohort; or why there is none."""
    obstacle = fitter.find_obstacle(fit, training, others)
    if obstacle is not None or training is None:
        return obstacle or "there are no training items"
    cohort = fitter.draw_cohort(training, seed)
    forms = fitter.fit_forms(fit, cohort, seed)
    measured = [_measure_log_far_opis(fit, form, seed, track) for form in forms]
    *earlier, (best, best_opis) = zip(forms, measured, strict=True)
    for form, opis in earlier:
        if opis is not None and best_opis is not None and _is_clearly_lower(opis, best_opis, seed):
            best, best_opis = form, opis
    if best_opis is None:
        return "classes are too small to compare scores by"
    return best, best_opis, cohort


def _is_clearly_lower(opis: DebiasedOpis, reference: DebiasedOpis, seed: int) -> bool:
    """Whether a score's OPIS is lower on the same classes beyond what resampling them explains."""
    differences = opis.by_class[0] - reference.by_class[0]
    drawn = draw_classes(len(differences), seed) @ differences
    return bool(np.quantile(drawn, CLEARLY) < 0)


def _measure_log_far_opis(
    items: EmbeddingSet, scorer: Scorer, seed: int, track: Track
) -> DebiasedOpis | None:
    """The debiased OPIS over log-FAR with each class's part; None where classes are too small."""
    return debias_log_far(sweep_pairs(arrange(items, scorer=scorer), track=track), seed, track)[1]
