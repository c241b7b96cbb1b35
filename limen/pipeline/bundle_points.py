"""The operating points of a bundle: read from files, or calibrated as a ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from api_schemas.build_config import CalibrationConfig
from api_schemas.operating_point import GallerySize, OperatingPoint, ScoreChoice, Target, TargetKind
from api_schemas.tradeoff import Tradeoff
from common.console import say, track
from common.errors import CalibrationRefused, ConfigError
from decision.class_arrays import ClassArrays
from decision.describe_point import count_of_thousand, describe_other_classes, describe_point
from decision.operating_point_files import SavedPoint, read_points_of_model
from decision.targets import Endpoint, select_active
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.group_ladder import calibrate_group_ladder
from evaluation.calibration.choose_score import FITTERS
from evaluation.calibration.ladder import ExpectedCosts, calibrate_ladder
from evaluation.report.ladder_table import format_ladder
from limen.pipeline.evaluation_source import EvaluationSource


@dataclass(frozen=True)
class BundlePoints:
    """Operating points with what their scores need, those that decide, and why others are missing.

    Attributes:
        active: by endpoint, the id of the point that decides; None where there is none.
        choice: why these were taken; None for points that were brought.
        tradeoffs: by endpoint, the rates of every other threshold; none for points that were brought.
        notes: what was done to the data and what is assumed, in words.
    """

    saved: list[SavedPoint]
    reasons: list[str]
    active: Mapping[Endpoint, str | None] = field(default_factory=dict)
    choice: str | None = None
    tradeoffs: list[Tradeoff] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> list[OperatingPoint]:
        """The points alone."""
        return [saved.point for saved in self.saved]

    @property
    def cohort(self) -> EmbeddingSet | None:
        """The one cohort of all points that need one; raises ConfigError when they have several."""
        cohorts = {
            saved.point.score.cohort_sha256: saved.cohort for saved in self.saved if saved.cohort is not None
        }
        if len(cohorts) > 1:
            raise ConfigError("the operating points have different cohorts; a bundle holds one.")
        return next(iter(cohorts.values()), None)

    @property
    def class_arrays(self) -> list[ClassArrays]:
        """The arrays of the class models that points need."""
        return [saved.class_arrays for saved in self.saved if saved.class_arrays is not None]


def make_points(
    source: EvaluationSource,
    gallery: EmbeddingSet,
    files: Sequence[Path],
    targets: Mapping[TargetKind, float],
    settings: CalibrationConfig,
    *,
    cohort: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
) -> BundlePoints:
    """The points in files, if any are given; else those of the targets, or the whole ladder.

    Args:
        targets: of flags; they replace those in ``settings``.
        cohort: vectors of people or things that are in no gallery, as impostors.
        unknown: real queries whose class is in no gallery.
    """
    if files:
        saved = read_points_of_model(files, source.model_hash)
        return BundlePoints(saved, [], select_active([one.point for one in saved]))
    if targets:
        settings = settings.model_copy(update={"targets": dict(targets)})
    points = calibrate_points(source, gallery, settings, cohort=cohort, unknown=unknown)
    if not points.saved:
        say(f"No operating point: {' '.join(points.reasons)}")
    return points


def calibrate_points(
    source: EvaluationSource,
    gallery: EmbeddingSet | None,
    settings: CalibrationConfig,
    *,
    cohort: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
) -> BundlePoints:
    """Every rung that the data can estimate or prove; a rung that it cannot becomes a reason.

    ``gallery`` is the one that 1:N points are for; None for one like the items they are chosen on.
    """
    sources = replace(
        source.get_calibration_sources(),
        cohort=cohort,
        unknown=unknown,
        gallery=None if gallery is None else GallerySize(items=len(gallery), classes=len(gallery.classes)),
        exclude_same=settings.exclude_same,
        vectors=settings.vectors,
    )
    given: dict[str, Any] = {
        "score": _select_score(source, gallery, settings.score),
        "aggregate": settings.aggregate,
        "confidence": settings.confidence,
        "costs": ExpectedCosts(settings.false_match_cost, settings.unknown_share, settings.proven_only),
        "targets": _list_targets(settings),
        "model_hash": source.model_hash,
        "track": track,
    }
    try:
        if settings.group:
            ladder = calibrate_group_ladder(sources, settings.group, settings.group_mode, **given)
        else:
            ladder = calibrate_ladder(sources, **given)
    except CalibrationRefused as refusal:
        return BundlePoints([], [str(refusal)])
    saved = [
        SavedPoint(calibration.point, calibration.cohort, calibration.class_arrays)
        for calibration in ladder.points
    ]
    points = BundlePoints(saved, ladder.reasons, ladder.active, ladder.choice, ladder.tradeoffs, ladder.notes)
    say(describe_points(points))
    return points


def describe_points(points: BundlePoints) -> str:
    """The table of the rungs, and in words what the points do that decide."""
    by_id = {point.id: point for point in points.points}
    own = [point for point in points.points if point.target.group and point.target.group.mode == "own"]
    general = [point for point in points.points if point not in own]
    lines = [format_ladder(general, set(points.active.values())), *points.reasons]
    if own:
        groups = {f"{group.column} = {group.values[0]}" for point in own if (group := point.target.group)}
        lines.append(
            f"{len(own)} further points, of {', '.join(sorted(groups))}: a request chooses the one of its "
            "group by `group`."
        )
    for endpoint, point_id in points.active.items():
        if point_id is not None:
            point = by_id[point_id]
            lines.append(f"Active for {endpoint}: {point.name} ({point.status}), {describe_point(point)}.")
            lines += describe_strangers(point)
    lines += [f"{note[0].upper()}{note[1:]}." for note in points.notes]
    return "\n".join([*lines, f"Chosen by {points.choice}."])


def describe_strangers(point: OperatingPoint) -> list[str]:
    """Whose rates are shown, where they are of classes unlike those chosen on, of a group, or of real unknown
    queries."""
    proof, group = point.proof, point.target.group
    lines = [sentence for sentence in (describe_other_classes(point),) if sentence is not None]
    if proof is not None and group is not None and group.mode == "every":
        lines.append(f"The target is met in every {group.column}; this is {proof.method.partition(';')[0]}.")
    if proof is not None and proof.unknown is not None and proof.fpir is not None:
        lines.append(
            f"That is of the unknown queries given. Of classes like those of the gallery, left out of it in "
            f"turn, about {count_of_thousand(proof.fpir)} of 1,000 queries are matched."
        )
    return lines


def _list_targets(settings: CalibrationConfig) -> list[Target] | None:
    if settings.targets is None:
        return None
    return [
        Target(kind=kind, value=value, confidence=settings.confidence)
        for kind, value in settings.targets.items()
    ]


def _select_score(source: EvaluationSource, gallery: EmbeddingSet | None, score: ScoreChoice) -> ScoreChoice:
    """The kind of pair score: no density where the gallery holds classes of the cohort, which inflate it.

    Evidence of a class leaves the class out of the cohort, so that it may keep its densities.
    """
    if gallery is None:
        return score
    if source.training is not None and not np.isin(source.training.classes, gallery.classes).any():
        return score
    if score in FITTERS:
        raise ConfigError(
            f"calibration.score: {score} needs training classes outside the gallery; use auto or cosine."
        )
    return "cosine"
