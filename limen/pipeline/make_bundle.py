"""Make a bundle from a run or from embeddings: calibrate, evaluate, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from api_schemas.build_config import BuildConfig
from api_schemas.manifest import VECTORS_FILE, Manifest
from api_schemas.operating_point import TargetKind
from api_schemas.report import Report
from common.console import say, track
from common.errors import InputError
from decision.scorers import CosineScorer
from decision.targets import select_active
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings
from embeddings.hashes import hash_model_name
from evaluation.evaluate import evaluate_embeddings
from index.bundle import check_replaceable, write_bundle
from index.engines.memory_estimate import estimate_build, measure_free_memory
from limen.pipeline.bundle_points import BundlePoints, make_points
from limen.pipeline.evaluation_source import EvaluationSource, read_run

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run

MAX_ALL_PAIRS = 100_000  # items; comparing all their pairs takes some minutes on two cores
_TOO_MANY = (
    "{rows:,} items are more than the {most:,} whose pairs are all compared: no threshold was measured. "
    "Give --sample-items 50000 to measure on whole classes drawn at random, or bring --operating-point."
)


def export_run(
    run: Run,
    out: Path,
    *,
    gallery: EmbeddingSet | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Make a bundle from a run; the gallery is all its items unless given, proven by its test classes."""
    from training.run_folder.model_card import build_model_card

    settings = run.config.with_overrides(list(overrides))
    check_replaceable(out, settings.name)
    source = read_run(run)
    gallery = source.collect_everything() if gallery is None else gallery
    if gallery.dimension != source.items.dimension:
        raise InputError(
            f"the gallery's vectors have {gallery.dimension} numbers, "
            f"the model's have {source.items.dimension}: embed the gallery with this run."
        )
    points = make_points(source, gallery, point_files, targets or {}, settings.calibration)
    report = _measure_report(source, points)
    card = build_model_card(run, report, points.points)
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
        sample_items: calibrate and measure on at most so many items, of whole classes drawn at random.
    """
    settings = BuildConfig.from_overrides(list(overrides))
    out = out.absolute()
    check_replaceable(out, path.stem)
    file = open_embeddings(path, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out.parent).free
    estimate = estimate_build(settings.index, file.rows, file.dimension, measure_free_memory(), free_disk)
    say(f"{path}: {file.rows:,} vectors of {file.dimension} numbers: {estimate}.")
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        vectors_file = Path(scratch) / VECTORS_FILE
        items = file.read(vectors_file, track)
        sample = _draw_sample(items, sample_items)
        source = EvaluationSource(sample or items, hash_model_name(model, items.dimension), "all")
        if sample is None and not point_files:
            points = BundlePoints([], [_TOO_MANY.format(rows=len(items), most=MAX_ALL_PAIRS)])
            say(points.reasons[0])
        else:
            points = make_points(source, source.items, point_files, targets or {}, settings.calibration)
        report = None if sample is None else _measure_report(source, points)
        if report is not None and source.items is not items:
            note = (
                f"Measured on {len(source.items):,} of {len(items):,} items: whole classes drawn at random."
            )
            report = report.model_copy(update={"reasons": [*report.reasons, note]})
            points = BundlePoints(points.saved, [*points.reasons, note])
        return _write(out, path.stem, source, report, items, points, settings, vectors_file=vectors_file)


def describe_bundle(manifest: Manifest, out: Path) -> str:
    """A sentence about a bundle that was made, with the next step."""
    counts = manifest.counts
    return f"Bundle in {out}: {counts.items} items of {counts.classes} classes. Next: limen serve {out}"


def _draw_sample(items: EmbeddingSet, sample_items: int | None) -> EmbeddingSet | None:
    """The items to calibrate and measure on; None for too many items without a sample size."""
    if sample_items is None:
        return items if len(items) <= MAX_ALL_PAIRS else None
    if sample_items >= len(items):
        return items
    order = np.random.default_rng(0).permutation(len(items.classes))
    sizes = np.bincount(items.codes)[order]
    drawn = np.sort(order[: int(np.searchsorted(np.cumsum(sizes), sample_items, side="right"))])
    if len(drawn) < 2:
        raise InputError(f"--sample-items {sample_items} is less than two whole classes of this file.")
    return items.subset(np.flatnonzero(np.isin(items.codes, drawn)))


def _measure_report(source: EvaluationSource, points: BundlePoints) -> Report:
    """The report with the score that decides, so that curves and thresholds share an axis."""
    scorer = points.saved[0].scorer if points.saved else CosineScorer()
    return evaluate_embeddings(
        source.items, scorer=scorer, model_hash=source.model_hash, split=source.split, track=track
    )


def _write(
    out: Path,
    name: str,
    source: EvaluationSource,
    report: Report | None,
    gallery: EmbeddingSet,
    points: BundlePoints,
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
        operating_points=points.points,
        active=select_active(points.points),
        reasons=points.reasons,
        cohort=points.cohort,
        class_arrays=points.class_arrays,
        config_yaml=settings.to_yaml(),
        readme=readme,
        vectors_file=vectors_file,
        track=track,
    )
