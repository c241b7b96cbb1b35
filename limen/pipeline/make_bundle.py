"""From vectors to a bundle: evaluate, calibrate, write. What ``export``, ``build`` and ``demo`` share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from api_schemas.config import BuildConfig, CalibrationConfig
from api_schemas.manifest import Manifest
from api_schemas.operating_point import VERIFY_TARGETS, GallerySize, OperatingPoint, Target, TargetKind
from api_schemas.report import Report
from common.console import say, track
from common.errors import CalibrationRefused, ConfigError, InputError
from decision.operating_point_files import SavedPoint, points_of_model
from decision.scorers import CosineScorer
from decision.targets import name_of
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings
from embeddings.hashes import vectors_model_hash
from evaluation.calibration.calibrate import calibrate
from evaluation.calibration.density_score import ScoreChoice
from evaluation.evaluate import evaluate
from index.bundle import refuse_foreign, write_bundle
from index.engines.memory_estimate import estimate, free_bytes
from limen.pipeline.evaluation_source import Source, source_of_run

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run


MOSTLY = 0.5


@dataclass(frozen=True)
class Points:
    """Operating points for a bundle, which of them decide, and why some are missing."""

    saved: list[SavedPoint]
    reasons: list[str]

    @property
    def all(self) -> list[OperatingPoint]:
        """The points themselves."""
        return [one.point for one in self.saved]

    @property
    def cohort(self) -> EmbeddingSet | None:
        """The one cohort of all density points; raises ConfigError when they have several."""
        cohorts = {one.point.score.cohort_sha256: one.cohort for one in self.saved if one.cohort is not None}
        if len(cohorts) > 1:
            raise ConfigError("the operating points have different cohorts; a bundle holds one.")
        return next(iter(cohorts.values()), None)

    def active(self) -> dict[str, str | None]:
        """The first point that decides 1:1 and the first that decides 1:N, by id."""
        verify = next((point.id for point in self.all if point.target.kind in VERIFY_TARGETS), None)
        match = next((point.id for point in self.all if point.target.kind == "fpir"), None)
        return {"verify": verify, "match": match}


def calibrated_points(
    source: Source, gallery: EmbeddingSet, targets: Sequence[Target], settings: CalibrationConfig
) -> Points:
    """One point a target; a target that the data cannot support becomes a reason instead of a failure."""
    saved: list[SavedPoint] = []
    reasons: list[str] = []
    size = GallerySize(items=len(gallery), classes=len(gallery.classes))
    cohort, score = _cohort_outside(gallery, source, settings.score)
    for target in targets:
        try:
            done = calibrate(
                source.items if source.fit is None else source.fit,
                target,
                proof=None if source.fit is None else source.items,
                score=score,
                cohort=cohort,
                name=name_of(target),
                model_hash=source.model_hash,
                gallery=size if target.kind == "fpir" else None,
                track=track,
            )
        except CalibrationRefused as refusal:
            reasons.append(f"{name_of(target)}: {refusal}")
            say(f"No operating point for {name_of(target)}: {refusal}")
            continue
        saved.append(SavedPoint(done.point, done.cohort))
        _warn_if_useless(done.point)
    return Points(saved, reasons)


def _warn_if_useless(point: OperatingPoint) -> None:
    """A threshold that can be proven may still say "unknown" to nearly everybody."""
    missed = point.proof.fnir if point.proof and point.target.kind == "fpir" else None
    if missed is not None and missed > MOSTLY:
        say(
            f"{point.name}: this proven threshold also turns away {100 * missed:.0f} % of known queries. "
            "Ask for a larger --target-fpir, or bring more classes."
        )


def _cohort_outside(
    gallery: EmbeddingSet, source: Source, score: ScoreChoice
) -> tuple[EmbeddingSet | None, ScoreChoice]:
    """The cohort, unless its classes are in the gallery: an item's own kin would count as its crowd."""
    if source.cohort is not None and not np.isin(source.cohort.classes, gallery.classes).any():
        return source.cohort, score
    if score == "density":
        raise ConfigError(
            "calibration.score: density needs training classes outside the gallery; use auto or cosine."
        )
    return None, "cosine"


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
        return Points(points_of_model(files, source.model_hash), [])
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
    from training.run_folder.model_card import model_card

    settings = run.config.with_overrides(list(overrides))
    refuse_foreign(out, settings.name)
    source = source_of_run(run)
    gallery = source.items if gallery is None else gallery
    if gallery.dimension != source.items.dimension:
        raise InputError(
            f"the gallery's vectors have {gallery.dimension} numbers, "
            f"the model's have {source.items.dimension}."
        )
    points = points_for(source, gallery, point_files, targets or {}, settings.calibration)
    report = _report(source, points)
    card = model_card(run, report, points.all)
    return _write(out, settings.name, source, report, gallery, points, settings, run.ensure_encoder(), card)


def build_from_embeddings(
    path: Path,
    out: Path,
    *,
    model: str,
    labels: Path | None = None,
    sample_items: int | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Make a bundle from an embeddings file of any size; the gallery is all rows.

    The vectors are never all in memory: they are read in blocks into the file that the bundle maps.

    Args:
        labels: labels of a ``.npy`` file.
        sample_items: measure on so many items at most, of whole classes drawn at random.
    """
    settings = BuildConfig.from_overrides(list(overrides))
    out = out.absolute()
    refuse_foreign(out, path.stem)
    file = open_embeddings(path, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out.parent).free
    needs = estimate(settings.index, file.rows, file.dimension, free_bytes(), free_disk)
    say(f"{path}: {file.rows:,} vectors of {file.dimension} numbers: {needs}.")
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        vectors_file = Path(scratch) / "vectors.npy"
        items = file.read(vectors_file, track)
        measured = _measured(items, sample_items)
        source = Source(measured or items, vectors_model_hash(model, items.dimension), "all")
        if measured is None and not point_files:
            points = Points([], [_TOO_MANY.format(rows=len(items), most=ALL_PAIRS_UP_TO)])
            say(points.reasons[0])
        else:
            points = points_for(source, source.items, point_files, targets or {}, settings.calibration)
        report = None if measured is None else _report(source, points)
        if report is not None and source.items is not items:
            note = (
                f"Measured on {len(source.items):,} of {len(items):,} items: whole classes drawn at random."
            )
            report = report.model_copy(update={"reasons": [*report.reasons, note]})
            points = Points(points.saved, [*points.reasons, note])
        return _write(out, path.stem, source, report, items, points, settings, vectors_file=vectors_file)


ALL_PAIRS_UP_TO = 100_000  # items whose pairs are all compared without being asked: some minutes on two cores
_TOO_MANY = (
    "{rows:,} items are more than the {most:,} whose pairs are all compared: no threshold was measured. "
    "Give --sample-items 50000 to measure on whole classes drawn at random, or bring --operating-point."
)


def _measured(items: EmbeddingSet, sample_items: int | None) -> EmbeddingSet | None:
    """What thresholds and report are measured on; None for too many items and no sample asked for."""
    if sample_items is None or sample_items >= len(items):
        return items if len(items) <= ALL_PAIRS_UP_TO or sample_items is not None else None
    order = np.random.default_rng(0).permutation(len(items.classes))
    sizes = np.bincount(items.codes)[order]
    chosen = np.sort(order[: int(np.searchsorted(np.cumsum(sizes), sample_items, side="right"))])
    if len(chosen) < 2:
        raise InputError(f"--sample-items {sample_items} is less than two whole classes of this file.")
    return items.subset(np.flatnonzero(np.isin(items.codes, chosen)))


def _report(source: Source, points: Points) -> Report:
    """Measured by the score that decides, so that curves and thresholds share an axis."""
    scorer = points.saved[0].scorer if points.saved else CosineScorer()
    return evaluate(
        source.items, scorer=scorer, model_hash=source.model_hash, split=source.split, track=track
    )


def _write(
    out: Path,
    name: str,
    source: Source,
    report: Report | None,
    gallery: EmbeddingSet,
    points: Points,
    settings: BuildConfig,
    encoder: Path | None = None,
    readme: str | None = None,
    vectors_file: Path | None = None,
) -> Manifest:
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
        readme=readme,
        vectors_file=vectors_file,
        track=track,
    )
