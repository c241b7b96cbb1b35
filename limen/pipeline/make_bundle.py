"""Make a bundle from a run or from embeddings: calibrate, evaluate, write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from api_schemas.build_config import BuildConfig
from api_schemas.class_corners import ClassCorners
from api_schemas.manifest import VECTORS_FILE, Manifest
from api_schemas.operating_point import Probability, TargetKind
from api_schemas.report import Report
from api_schemas.tradeoff import Tradeoff
from common.console import say, track
from common.errors import InputError
from decision.scorers import CosineScorer
from decision.targets import get_endpoint
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings
from embeddings.hashes import hash_items, hash_model_name
from evaluation.audit.decision_figures import add_decision_figures
from evaluation.calibration.sets.sources import sample_items as draw_items
from evaluation.calibration.tradeoff.measure_tradeoff import MeasuredSets, measure_tradeoff
from evaluation.evaluate import evaluate_embeddings
from index.bundle import check_replaceable, write_bundle
from index.engines.memory_estimate import estimate_build, measure_free_memory
from index.items.metadata import check_metadata
from limen.pipeline.bundle_points import BundlePoints, make_points
from limen.pipeline.evaluation_source import EvaluationSource, read_run
from limen.pipeline.point_options import DEFAULT_OPTIONS, PointOptions
from limen.pipeline.two_models.roles import (
    check_role_options,
    compare_roles,
    measure_between_roles,
    select_gallery,
)

if TYPE_CHECKING:
    from training.run_folder.run_folder import Run

USUAL_SIDE = 96  # pixels of a thumbnail
MAX_ALL_PAIRS = 25_000  # items; all pairs of more are compared where that is asked for


def export_run(
    run: Run,
    out: Path,
    *,
    gallery: EmbeddingSet | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    overrides: Sequence[str] = (),
    options: PointOptions = DEFAULT_OPTIONS,
    thumbnails: int | None = None,
    gallery_of: Path | None = None,
) -> Manifest:
    """Make a bundle from a run; the gallery is all its items unless given, proven by its test classes.

    ``gallery_of``, a bundle of an earlier model: its gallery is kept as it is, the points hold for queries of
    the run's network against it (``two_models.old_gallery``). With ``thumbnails``, a side in pixels, the
    bundle keeps a small picture, or the first characters of the text, of each item of the gallery that is
    among the run's data.
    """
    from training.data.read_thumbnails import read_thumbnails
    from training.run_folder.model_card import build_model_card

    settings = options.apply(run.config.with_overrides(list(overrides)))
    check_replaceable(out, settings.name)
    old = None
    if gallery_of is not None:
        from limen.pipeline.two_models.old_gallery import check_options, open_old_gallery

        check_options(options, gallery, point_files)
        old = open_old_gallery(gallery_of, run, read_run(run), settings.calibration, track)
        gallery = old.gallery
    source, unknown, gallery = options.read_labels(read_run(run) if old is None else old.source, gallery)
    by_role = source if source.role_column is not None else None
    calibration = settings.calibration if old is None else old.calibration
    if by_role is not None:
        check_role_options(options)
        gallery = select_gallery(by_role) if gallery is None else gallery
        source, calibration = compare_roles(by_role, calibration)
    gallery = source.collect_everything() if gallery is None else gallery
    check_metadata(gallery.metadata)
    if gallery.dimension != source.items.dimension:
        raise InputError(
            f"the gallery's vectors have {gallery.dimension} numbers, "
            f"the model's have {source.items.dimension}: embed the gallery with this run."
        )
    points = make_points(
        source,
        gallery,
        point_files,
        targets or {},
        calibration,
        cohort=options.cohort,
        unknown=unknown,
    )
    if by_role is not None:
        report = measure_between_roles(by_role, points.tradeoffs, track)
    elif old is None:
        report = _measure_report(source, points, settings.calibration.exclude_same)
    else:
        report = old.measure_report(points.tradeoffs, track)
    card = build_model_card(run, report, points.points)
    pictures: Iterable[bytes | None] = ()
    if thumbnails is not None:
        preprocessing = run.load_preprocessing()
        pictures = read_thumbnails(run.config.data, preprocessing, gallery.ids, thumbnails, track, say)
    return _write(
        out,
        settings.name,
        source,
        report,
        gallery,
        points,
        settings,
        run.ensure_encoder(),
        card,
        thumbnails=pictures,
        class_corners=run.load_class_corners(),
        match_probability=run.load_match_probability(),
        gallery_model_hash=None if old is None else old.model_hash,
    )


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
    options: PointOptions = DEFAULT_OPTIONS,
    pictures: Path | None = None,
    thumbnails: int | None = None,
) -> Manifest:
    """Make a bundle from an embeddings file of any size; the gallery is all rows.

    The vectors are never all in memory: they are read in blocks into the file that the bundle maps.

    Args:
        labels: labels of a ``.npy`` file.
        sample_items: calibrate and measure on at most so many items, of whole classes drawn at random;
            of more than MAX_ALL_PAIRS items a sample is drawn unless this is given.
        pictures: a folder of pictures, of which the bundle keeps thumbnails (see ``read_pictures``), of
            ``thumbnails`` pixels on the longer side.
    """
    from limen.pipeline.read_pictures import check_pictures, read_pictures

    check_pictures(pictures, thumbnails)
    settings = options.apply(BuildConfig.from_overrides(list(overrides)))
    out = out.absolute()
    check_replaceable(out, path.stem)
    file = open_embeddings(path, labels, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out.parent).free
    estimate = estimate_build(settings.index, file.rows, file.dimension, measure_free_memory(), free_disk)
    say(f"{path}: {file.rows:,} vectors of {file.dimension} numbers: {estimate}.")
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        vectors_file = Path(scratch) / VECTORS_FILE
        items = file.read(vectors_file, track)
        check_metadata(items.metadata)
        everything = EvaluationSource(items, hash_model_name(model, items.dimension), "all")
        return build_from_source(
            everything,
            out,
            path.stem,
            settings,
            sample_items=sample_items,
            point_files=point_files,
            targets=targets,
            options=options,
            vectors_file=vectors_file,
            make_thumbnails=lambda gallery: (
                () if pictures is None else read_pictures(gallery, pictures, thumbnails or USUAL_SIDE)
            ),
        )


def build_from_source(
    everything: EvaluationSource,
    out: Path,
    name: str,
    settings: BuildConfig,
    *,
    sample_items: int | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    options: PointOptions = DEFAULT_OPTIONS,
    vectors_file: Path | None = None,
    encoder: Path | None = None,
    make_thumbnails: Callable[[EmbeddingSet], Iterable[bytes | None]] = lambda _: (),
    readme: Callable[[Report | None], str] | None = None,
) -> Manifest:
    """Make a bundle from vectors that no training has seen; the gallery is all of them.

    Args:
        vectors_file: the ``.npy`` that the items' vectors are mapped from, which becomes the bundle's.
        encoder: the folder of the encoder's files.
        make_thumbnails: of the items of the gallery, in their order.
        readme: a text for people about the bundle.
    """
    source, unknown, _ = options.read_labels(everything)
    gallery = source.items
    sample = _draw_sample(gallery, sample_items)
    measured = replace(source, items=sample)
    points = make_points(
        measured,
        gallery,
        point_files,
        targets or {},
        settings.calibration,
        cohort=options.cohort,
        unknown=unknown,
    )
    report = None
    if _has_pairs(sample):
        report = _measure_report(measured, points, settings.calibration.exclude_same)
    else:
        note = (
            "No report: it compares items of one class with each other and with those of others, which takes "
            "two classes and two items of one."
        )
        say(note)
        points = replace(points, reasons=[*points.reasons, note])
    if sample is not gallery:
        note = (
            f"Measured on {len(sample):,} of {len(gallery):,} items, of {len(sample.classes):,} classes "
            f"drawn at random; --sample-items {len(gallery)} compares all."
        )
        if report is not None:
            report = report.model_copy(update={"reasons": [*report.reasons, note]})
        points = replace(points, reasons=[*points.reasons, note])
    return _write(
        out,
        name,
        source,
        report,
        gallery,
        points,
        settings,
        encoder,
        None if readme is None else readme(report),
        vectors_file if len(gallery) == len(everything.items) else None,
        make_thumbnails(gallery),
    )


def describe_bundle(manifest: Manifest, out: Path) -> str:
    """A sentence about a bundle that was made, with the next step."""
    counts = manifest.counts
    classes = f"{counts.classes} class{'es' if counts.classes != 1 else ''}"
    made = f"Bundle in {out}: {counts.items} items of {classes}. {_describe_recall(manifest)}"
    return f"{made}Next: limen serve {out}"


def _describe_recall(manifest: Manifest) -> str:
    """What searches find, where the build measured it."""
    parameters = manifest.index.parameters
    if "target_recall" not in parameters:
        return ""
    effort = next(f"{name} {parameters[name]:g}" for name in ("ef_search", "nprobe") if name in parameters)
    short = "" if parameters["recall"] >= parameters["target_recall"] else ", less than asked for"
    return f"Searches find {parameters['recall']:.1%} of the ten nearest ({effort}{short}). "


def _draw_sample(items: EmbeddingSet, sample_items: int | None) -> EmbeddingSet:
    """The items to calibrate and measure on: all, or those of classes drawn at random."""
    if sample_items is None:
        return items if len(items) <= MAX_ALL_PAIRS else draw_items(items, 0)
    if sample_items >= len(items):
        return items
    order = np.random.default_rng(0).permutation(len(items.classes))
    sizes = np.bincount(items.codes)[order]
    drawn = np.sort(order[: int(np.searchsorted(np.cumsum(sizes), sample_items, side="right"))])
    if len(drawn) < 2:
        raise InputError(f"--sample-items {sample_items} is less than two whole classes of this file.")
    return items.subset(np.flatnonzero(np.isin(items.codes, drawn)))


def _has_pairs(items: EmbeddingSet) -> bool:
    """Whether two items of one class, and two of different classes, can be compared."""
    return len(items.classes) > 1 and bool((np.bincount(items.codes) > 1).any())


def _measure_report(source: EvaluationSource, points: BundlePoints, exclude_same: Sequence[str]) -> Report:
    """The report with the score that decides 1:1, so that curves and thresholds share an axis."""
    of_pairs = (saved.scorer for saved in points.saved if get_endpoint(saved.point.target) == "verify")
    scorer = next(of_pairs, CosineScorer())
    report = evaluate_embeddings(
        source.items,
        exclude_same=exclude_same,
        scorer=scorer,
        model_hash=source.model_hash,
        split=source.split,
        track=track,
        say=say,
    )
    report = report.model_copy(update={"tradeoffs": points.tradeoffs or _measure_tradeoffs(source, points)})
    deciding = next((saved for saved in points.saved if saved.point.id == points.active.get("match")), None)
    if deciding is None:
        return report
    if deciding.point.target.vectors > 1:
        why = (
            f"'{deciding.point.name}' decides {deciding.point.target.vectors} vectors together: what it does "
            "is in its proof; figures of single queries are not given."
        )
        return report.model_copy(update={"reasons": [*report.reasons, why]})
    of_groups = [group.column.split(", ") for point in points.points if (group := point.target.group)]
    groups = list(dict.fromkeys(column for columns in of_groups for column in columns))
    return add_decision_figures(
        report,
        source.items,
        deciding.point,
        deciding.scorer,
        groups=groups,
        exclude_same=exclude_same,
        may_be_fitted=True,
        track=track,
    )


def _measure_tradeoffs(source: EvaluationSource, points: BundlePoints) -> list[Tradeoff]:
    """Those of the endpoints that points decide which were brought; none where a score was fitted here."""
    tradeoffs = []
    for saved in points.saved:
        point, target = saved.point, saved.point.target
        endpoint = get_endpoint(target)
        is_fitted = target.aggregate == "evidence" and point.data_hash == hash_items(source.items)
        if point.id != points.active.get(endpoint) or is_fitted or target.vectors > 1:
            continue
        sets = MeasuredSets.of_items(source.items, saved.scorer, target.aggregate, target.gallery, track)
        tradeoff = measure_tradeoff(sets, endpoint, points.points, target.confidence)
        if tradeoff is not None:
            tradeoffs.append(tradeoff)
    return tradeoffs


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
    thumbnails: Iterable[bytes | None] = (),
    class_corners: ClassCorners | None = None,
    match_probability: Probability | None = None,
    gallery_model_hash: str | None = None,
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
        active=points.active,
        choice=points.choice,
        reasons=points.reasons,
        cohort=points.cohort,
        class_arrays=points.class_arrays,
        config_yaml=settings.to_yaml(),
        readme=readme,
        vectors_file=vectors_file,
        thumbnails=thumbnails,
        class_corners=class_corners,
        match_probability=match_probability,
        gallery_model_hash=gallery_model_hash,
        track=track,
    )
