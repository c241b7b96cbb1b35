"""The operating points of a bundle: read from files, or calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from api_schemas.build_config import CalibrationConfig
from api_schemas.operating_point import GallerySize, OperatingPoint, ScoreChoice, Target, TargetKind
from common.console import say, track
from common.errors import CalibrationRefused, ConfigError
from decision.class_arrays import ClassArrays
from decision.operating_point_files import SavedPoint, read_points_of_model
from decision.targets import get_endpoint, name_target
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.choose_score import FITTERS
from limen.pipeline.evaluation_source import EvaluationSource

MOST_MISSED = 0.5  # FNIR above which a proven 1:N point is hardly useful


@dataclass(frozen=True)
class BundlePoints:
    """Operating points with their cohorts, and the reasons why some are missing."""

    saved: list[SavedPoint]
    reasons: list[str]

    @property
    def points(self) -> list[OperatingPoint]:
        """The points without their cohorts."""
        return [saved.point for saved in self.saved]

    @property
    def cohort(self) -> EmbeddingSet | None:
        """The one cohort of all density points; raises ConfigError when they have several."""
        cohorts = {
            saved.point.score.cohort_sha256: saved.cohort for saved in self.saved if saved.cohort is not None
        }
        if len(cohorts) > 1:
            raise ConfigError("the operating points have different cohorts; a bundle holds one.")
        return next(iter(cohorts.values()), None)

    @property
    def class_arrays(self) -> list[ClassArrays]:
        """The class models of the points that have one."""
        return [saved.class_arrays for saved in self.saved if saved.class_arrays is not None]


def make_points(
    source: EvaluationSource,
    gallery: EmbeddingSet,
    files: Sequence[Path],
    targets: Mapping[TargetKind, float],
    settings: CalibrationConfig,
) -> BundlePoints:
    """The points in files, if any are given; else one point per target.

    ``targets`` of flags replace those of the same kind in ``settings``.
    """
    if files:
        return BundlePoints(read_points_of_model(files, source.model_hash), [])
    merged = settings.model_copy(update={"targets": {**settings.targets, **targets}})
    return calibrate_points(source, gallery, merged.as_targets(), merged.score)


def calibrate_points(
    source: EvaluationSource, gallery: EmbeddingSet, targets: Sequence[Target], score: ScoreChoice
) -> BundlePoints:
    """One point per target; a target that the data cannot support becomes a reason instead of an error."""
    saved: list[SavedPoint] = []
    reasons: list[str] = []
    size = GallerySize(items=len(gallery), classes=len(gallery.classes))
    cohort, score = _select_cohort(source, gallery, score)
    for target in targets:
        name = name_target(target)
        try:
            calibration = calibrate_threshold(
                source.fit,
                target,
                proof=source.proof,
                score=score,
                training=cohort,
                name=name,
                model_hash=source.model_hash,
                gallery=size if get_endpoint(target) == "match" else None,
                track=track,
            )
        except CalibrationRefused as refusal:
            reasons.append(f"{name}: {refusal}")
            say(f"No operating point for {name}: {refusal}")
            continue
        saved.append(SavedPoint(calibration.point, calibration.cohort))
        _warn_if_useless(calibration.point)
    return BundlePoints(saved, reasons)


def _select_cohort(
    source: EvaluationSource, gallery: EmbeddingSet, score: ScoreChoice
) -> tuple[EmbeddingSet | None, ScoreChoice]:
    """The training items, unless they share classes with the gallery, which would inflate its densities."""
    if source.training is not None and not np.isin(source.training.classes, gallery.classes).any():
        return source.training, score
    if score in FITTERS:
        raise ConfigError(
            f"calibration.score: {score} needs training classes outside the gallery; use auto or cosine."
        )
    return None, "cosine"


def _warn_if_useless(point: OperatingPoint) -> None:
    """Warn about a proven threshold that answers "unknown" to most known queries."""
    missed = point.proof.fnir if point.proof and get_endpoint(point.target) == "match" else None
    if missed is not None and missed > MOST_MISSED:
        say(
            f"{point.name}: this proven threshold also turns away {100 * missed:.0f} % of known queries. "
            "Ask for a larger --target-fpir, or bring more classes."
        )
