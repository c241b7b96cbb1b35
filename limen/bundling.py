"""From vectors to a bundle: evaluate, calibrate, write. What ``export``, ``build`` and ``demo`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from api_schemas.config import BuildConfig, CalibrationConfig
from api_schemas.errors import BundleError, CalibrationRefused, InputError
from api_schemas.manifest import Manifest
from api_schemas.operating_point import VERIFY_TARGETS, GallerySize, OperatingPoint, Target, TargetKind
from decision.embeddings import EmbeddingSet
from evaluation.calibrate import calibrate
from evaluation.evaluate import evaluate
from index.bundle import write_bundle
from limen.progress import say, track
from limen.source import Source, encoder_folder, open_source, source_of_run
from limen.targets import name_of

if TYPE_CHECKING:
    from training.run import Run


@dataclass(frozen=True)
class Points:
    """Operating points for a bundle, which of them decide, and why some are missing."""

    all: list[OperatingPoint]
    cohort: EmbeddingSet | None
    reasons: list[str]

    def active(self) -> dict[str, str | None]:
        """The first point that decides 1:1 and the first that decides 1:N, by id."""
        verify = next((point.id for point in self.all if point.target.kind in VERIFY_TARGETS), None)
        match = next((point.id for point in self.all if point.target.kind == "fpir"), None)
        return {"verify": verify, "match": match}


def given_points(files: Sequence[Path], model_hash: str) -> list[OperatingPoint]:
    """Read operating points from files; raises BundleError for one of another model."""
    points = [OperatingPoint.load(file) for file in files]
    for file, point in zip(files, points, strict=True):
        if point.model_hash != model_hash:
            raise BundleError(
                f"{file} belongs to model {point.model_hash[:12]}, the bundle to {model_hash[:12]}: "
                "calibrate again with this model."
            )
    return points


def calibrated_points(
    source: Source, gallery: EmbeddingSet, targets: Sequence[Target], settings: CalibrationConfig
) -> Points:
    """One point a target; a target that the data cannot support becomes a reason instead of a failure."""
    points: list[OperatingPoint] = []
    cohort: EmbeddingSet | None = None
    reasons: list[str] = []
    size = GallerySize(items=len(gallery), classes=len(gallery.classes))
    for target in targets:
        try:
            done = calibrate(
                source.items if source.fit is None else source.fit,
                target,
                proof=None if source.fit is None else source.items,
                score=settings.score,
                cohort=source.cohort,
                confidence=target.confidence,
                name=name_of(target),
                model_hash=source.model_hash,
                gallery=size if target.kind == "fpir" else None,
                track=track,
            )
        except CalibrationRefused as refusal:
            reasons.append(f"{name_of(target)}: {refusal}")
            say(f"No operating point for {name_of(target)}: {refusal}")
            continue
        points.append(done.point)
        cohort = cohort or done.cohort
    return Points(points, cohort, reasons)


def points_for(
    source: Source,
    gallery: EmbeddingSet,
    files: Sequence[Path],
    targets: Mapping[TargetKind, float],
    settings: CalibrationConfig,
) -> Points:
    """Operating points for a bundle: read from files if any are given, else calibrated.

    ``targets`` from flags replace the configuration's of the same kind.
    """
    if files:
        return Points(given_points(files, source.model_hash), None, [])
    chosen = settings.model_copy(update={"targets": {**settings.targets, **targets}})
    return calibrated_points(source, gallery, chosen.as_targets(), chosen)


def export_run(
    run: Run,
    out: Path,
    *,
    gallery: EmbeddingSet | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Make a bundle from a run; the gallery is its test items unless given."""
    settings = run.config.with_overrides(list(overrides))
    source = source_of_run(run)
    gallery = source.items if gallery is None else gallery
    if gallery.dimension != source.items.dimension:
        raise InputError(
            f"the gallery's vectors have {gallery.dimension} numbers, "
            f"the model's have {source.items.dimension}."
        )
    points = points_for(source, gallery, point_files, targets or {}, settings.calibration)
    return _write(out, settings.name, source, gallery, points, settings, encoder_folder(run))


def build_from_embeddings(
    path: Path,
    out: Path,
    *,
    model: str,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Make a bundle from an embeddings file; the gallery is all rows."""
    settings = BuildConfig.from_overrides(list(overrides))
    source = open_source(path, model)
    points = points_for(source, source.items, point_files, targets or {}, settings.calibration)
    return _write(out, path.stem, source, source.items, points, settings, None)


def _write(
    out: Path,
    name: str,
    source: Source,
    gallery: EmbeddingSet,
    points: Points,
    settings: BuildConfig,
    encoder: Path | None,
) -> Manifest:
    report = evaluate(source.items, model_hash=source.model_hash, split=source.split, track=track)
    return write_bundle(
        out,
        name=name,
        items=gallery,
        model_hash=source.model_hash,
        encoder_folder=encoder,
        index_config=settings.index,
        report=report,
        operating_points=points.all,
        active=points.active(),
        reasons=points.reasons,
        cohort=points.cohort,
        config_yaml=settings.to_yaml(),
        track=track,
    )
