"""Limen: train embeddings, measure how evenly one threshold holds, freeze it with its proof, serve it.

report = limen.evaluate(embeddings, labels)
point = limen.calibrate(embeddings, labels, target_far=0.01)
audit = limen.audit(embeddings, labels, threshold=0.75)
suspects = limen.audit_labels(embeddings, labels)
limen.wrap("encoder.onnx", "photos", "bundles/photos", preprocessing="imagenet")
gallery = limen.open_bundle("bundles/faces")
gallery.match(vectors)
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import CalibrationRefused, InputError, LimenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from api_schemas.label_audit import LabelAudit
    from api_schemas.manifest import Manifest
    from api_schemas.operating_point import Aggregate, OperatingPoint, ScoreChoice
    from api_schemas.report import Audit, DistanceKind, Report
    from embeddings.embedding_set import EmbeddingSet
    from evaluation.calibration.calibrate import StatusChoice
    from index.gallery.gallery import Gallery

__all__ = [
    "CalibrationRefused",
    "Gallery",
    "InputError",
    "LimenError",
    "Manifest",
    "OperatingPoint",
    "Report",
    "attach_encoder",
    "audit",
    "audit_labels",
    "calibrate",
    "evaluate",
    "open_bundle",
    "wrap",
]

if not TYPE_CHECKING:
    _LAZY = {
        "Gallery": "index.gallery.gallery",
        "Manifest": "api_schemas.manifest",
        "OperatingPoint": "api_schemas.operating_point",
        "Report": "api_schemas.report",
    }

    def __getattr__(name: str) -> object:
        """Import a class when it is first used, so that importing limen stays quick."""
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module 'limen' has no attribute {name!r}")


def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    exclude_same: ArrayLike | None = None,
    unknown: ArrayLike | None = None,
    model: str = "unnamed",
) -> Report:
    """Measure retrieval, verification, identification and threshold consistency, exactly, over all pairs.

    Args:
        embeddings: float [n, d]; rows are normalised.
        labels: [n], integers or text.
        exclude_same: [n]; pairs that share this value (a camera, a session) are left out.
        unknown: float [m, d], queries whose classes are not among ``labels``.
        model: name of the model.

    Raises:
        InputError: data that cannot be used; the message names the row.
    """
    from embeddings.embedding_set import EmbeddingSet
    from embeddings.hashes import hash_model_name
    from evaluation.evaluate import evaluate_embeddings

    columns: dict[str, Any] = {} if exclude_same is None else {"exclude_same": exclude_same}
    items = EmbeddingSet.from_arrays(embeddings, labels, metadata=columns)
    return evaluate_embeddings(
        items,
        unknown=_read_unknown(unknown),
        exclude_same=None if exclude_same is None else "exclude_same",
        model_hash=hash_model_name(model, items.dimension),
        split="all",
    )


def calibrate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    target_far: float | None = None,
    target_fpir: float | None = None,
    target_frr: float | None = None,
    eer: bool = False,
    cost: tuple[float, float, float] | None = None,
    score: ScoreChoice = "auto",
    aggregate: Aggregate = "nearest",
    status: StatusChoice = "auto",
    cohort: tuple[ArrayLike, ArrayLike] | None = None,
    unknown: ArrayLike | None = None,
    exclude_same: ArrayLike | None = None,
    vectors: int = 1,
    confidence: float = 0.95,
    name: str | None = None,
    model: str = "unnamed",
) -> OperatingPoint:
    """Choose a threshold for a target, and measure on folds of the classes what it does.

    Without a target: of the usual 1:N targets the point with the least expected cost, where half of the
    queries are unknown and a false match costs five misses.

    Args:
        embeddings: float [n, d]; rows are normalised.
        labels: [n], integers or text.
        target_far, target_fpir, target_frr: a fraction in (0, 1); give at most one of these or the next two.
        eer: the threshold where FAR equals FRR.
        cost: of a false match and of a false non-match, and the prior of a genuine pair.
        score: the kind of score to threshold; ``auto`` takes the more consistent one.
        aggregate: of an FPIR target, how several items of a class make one score.
        status: ``proven`` if the upper bound must meet the target, ``estimated`` for the best estimate,
            ``auto`` for the first where the data supports it and else the second.
        cohort: vectors and labels of others who are in no gallery, as impostors; one class is enough then.
        unknown: float [m, d], real queries whose class is in no gallery.
        exclude_same: [n]; pairs that share this value (a camera, a session) count for nothing.
        vectors: how many vectors of one object a 1:N query has, decided together.
        confidence: of the one-sided upper bound of a proven point.
        name: the point's name; made from the target unless given.
        model: name of the model; a bundle of these vectors must have the same name.

    Raises:
        InputError: data that cannot be used; the message names the row.
        CalibrationRefused: the data cannot support the target; the message says what would.
    """
    from api_schemas.operating_point import Aggregate, ScoreChoice
    from decision.targets import build_target, check_vectors
    from embeddings.embedding_set import EmbeddingSet
    from embeddings.hashes import hash_model_name
    from embeddings.python_objects import check_choice, convert_to_number, convert_to_triple
    from evaluation.calibration.calibrate import StatusChoice, calibrate_threshold
    from evaluation.calibration.ladder import calibrate_ladder
    from evaluation.calibration.sets.sources import CalibrationSources

    check_choice(score, ScoreChoice, "score")
    check_choice(aggregate, Aggregate, "aggregate")
    check_choice(status, StatusChoice, "status")
    confidence = convert_to_number(confidence, "confidence")
    excluded: dict[str, Any] = {} if exclude_same is None else {"exclude_same": exclude_same}
    items = EmbeddingSet.from_arrays(embeddings, labels, metadata=excluded)
    check_vectors(vectors)
    sources = CalibrationSources(
        items,
        cohort=None if cohort is None else EmbeddingSet.from_arrays(*cohort, source="cohort"),
        unknown=_read_unknown(unknown),
        exclude_same=list(excluded) or None,
        vectors=vectors,
    )
    model_hash = hash_model_name(model, items.dimension)
    if (target_far, target_fpir, target_frr, cost) == (None, None, None, None) and not eer:
        ladder = calibrate_ladder(
            sources, score=score, aggregate=aggregate, confidence=confidence, model_hash=model_hash
        )
        chosen = next(one.point for one in ladder.points if one.point.id == ladder.active["match"])
        return chosen if name is None else chosen.with_changes(name=name)
    target = build_target(
        confidence,
        far=None if target_far is None else convert_to_number(target_far, "target_far"),
        fpir=None if target_fpir is None else convert_to_number(target_fpir, "target_fpir"),
        frr=None if target_frr is None else convert_to_number(target_frr, "target_frr"),
        eer=eer,
        cost=None if cost is None else convert_to_triple(cost, "cost"),
        aggregate=aggregate,
        vectors=vectors,
    )
    calibration = calibrate_threshold(
        sources, target, score=score, status=status, name=name and str(name), model_hash=model_hash
    )
    return calibration.point


def audit(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: float,
    distance: DistanceKind = "similarity",
    gallery: tuple[ArrayLike, ArrayLike] | None = None,
    unknown: ArrayLike | None = None,
    groups: dict[str, ArrayLike] | None = None,
    aggregate: Aggregate = "nearest",
    confidence: float = 0.95,
) -> Audit:
    """Measure a threshold that you have already: its error rates, for whom it is worst, what would be better.

    Args:
        embeddings: float [n, d]; rows are normalised, as distances are between vectors of length one.
        labels: [n], integers or text.
        threshold: of ``distance``: ``similarity`` (cosine, accepted from there on), ``cosine`` or ``l2``
            distance (accepted up to there).
        gallery: embeddings and labels to find the others in; each item is a query of all others without it.
        unknown: float [m, d], queries whose classes are in no gallery.
        groups: values, [n], by the name of what they are groups of, e.g. a site or a camera.
        aggregate: how several items of a class make one score.
        confidence: of the intervals.

    Raises:
        InputError: data that cannot be used; the message names the row. Vectors of other lengths than one,
            with an ``l2`` threshold: it would not be the same threshold.
    """
    from api_schemas.operating_point import Aggregate
    from api_schemas.report import DistanceKind
    from embeddings.embedding_set import EmbeddingSet
    from embeddings.python_objects import check_choice, convert_to_number
    from evaluation.audit.audit_threshold import audit_threshold
    from evaluation.audit.distance_threshold import check_lengths

    check_choice(distance, DistanceKind, "distance")
    check_choice(aggregate, Aggregate, "aggregate")
    if distance == "l2":
        check_lengths(embeddings)
    items = EmbeddingSet.from_arrays(embeddings, labels, metadata=groups)
    references = None if gallery is None else EmbeddingSet.from_arrays(*gallery, source="gallery")
    return audit_threshold(
        items,
        convert_to_number(threshold, "threshold"),
        distance,
        gallery=references,
        unknown=_read_unknown(unknown),
        groups=list(groups or {}),
        aggregate=aggregate,
        confidence=convert_to_number(confidence, "confidence"),
    ).audit


def audit_labels(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    threshold: float | None = None,
    most: int = 10_000,
) -> LabelAudit:
    """List the items whose label may be wrong, most suspicious first, with the reason in words; no verdict.

    Args:
        embeddings: float [n, d]; rows are normalised.
        labels: [n], integers or text.
        ids: [n], distinct; row numbers unless given.
        threshold: similarity from which two items are accepted as the same; without one, that which 1 % of
            random pairs of two labels reach.
        most: findings in the list; the others are counted.

    Raises:
        InputError: data that cannot be used; the message names the row.
    """
    from embeddings.embedding_set import EmbeddingSet
    from embeddings.python_objects import convert_to_number
    from evaluation.label_audit.audit_labels import audit_labels as audit_items

    items = EmbeddingSet.from_arrays(embeddings, labels, ids)
    chosen = None if threshold is None else convert_to_number(threshold, "threshold")
    return audit_items(items, threshold=chosen, most=most)


def open_bundle(path: str | Path) -> Gallery:
    """Open a bundle for ``search``, ``match`` and ``verify`` in this process; raises BundleError."""
    from index.gallery.gallery import Gallery

    return Gallery.open(Path(path))


def wrap(
    encoder: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    preprocessing: str | Path | dict[str, Any] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    name: str | None = None,
    unknown: ArrayLike | None = None,
    unknown_labels: Sequence[str] = (),
    thumbnails: int | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Make a bundle from an encoder that exists and data: checked, embedded, calibrated, ready to serve.

    Args:
        encoder: an ONNX file, a token table (.safetensors), a folder of sentence-transformers, ``hf:NAME`` or
            ``timm:NAME``.
        data: a folder or zip of class folders of images, a list of images or texts, or vectors; several are
            read together. All of it is the gallery.
        out: the bundle's folder.
        preprocessing: a YAML file, the name of a preset such as ``imagenet``, or the keys of such a file.
        input_name, output_name: of a network that has several.
        name: of the bundle; that of its folder if not given.
        unknown: float [m, d], real queries whose class is in no gallery.
        unknown_labels: labels of no identity: their items are unknown queries.
        thumbnails: pixels of a small picture that is kept of each item; none unless given.
        overrides: ``key.path=value`` of the configuration, as ``--set``.

    Raises:
        InputError: an encoder or data that cannot be used, in one sentence.
    """
    from limen.pipeline.point_options import PointOptions
    from limen.pipeline.wrap_encoder import build_config, wrap_encoder

    config = build_config(
        str(encoder),
        data=_list_paths(data),
        preprocessing=str(preprocessing) if isinstance(preprocessing, Path) else preprocessing,
        input_name=input_name,
        output_name=output_name,
        name=name,
        overrides=overrides,
    )
    options = PointOptions(unknown=_read_unknown(unknown), unknown_labels=unknown_labels)
    return wrap_encoder(config, Path(out), thumbnails=thumbnails, options=options)


def attach_encoder(
    bundle: str | Path,
    encoder: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    preprocessing: str | Path | dict[str, Any] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    tolerance: float = 0.01,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Manifest:
    """Give a bundle of vectors the encoder that made them, so that it takes images or texts.

    Args:
        bundle: made by ``limen build``.
        encoder, preprocessing, input_name, output_name, overrides: as ``wrap`` takes them.
        data: what the vectors were made of, or a part of it, with the same ids.
        tolerance: largest L2 distance of a stored vector and the encoder's.
        out: another folder for the bundle; its own unless given.

    Raises:
        InputError: the encoder makes other vectors; names the worst.
    """
    from limen.pipeline.attach_encoder import attach_encoder as attach
    from limen.pipeline.wrap_encoder import build_config

    config = build_config(
        str(encoder),
        data=_list_paths(data),
        preprocessing=str(preprocessing) if isinstance(preprocessing, Path) else preprocessing,
        input_name=input_name,
        output_name=output_name,
        overrides=overrides,
    )
    return attach(Path(bundle), config, None if out is None else Path(out), tolerance)


def _list_paths(data: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]


def _read_unknown(vectors: ArrayLike | None) -> EmbeddingSet | None:
    """Unknown queries, float [m, d], as a set."""
    if vectors is None:
        return None
    from embeddings.embedding_set import EmbeddingSet, normalise_rows

    rows = normalise_rows(vectors, "unknown")
    return EmbeddingSet.from_arrays(rows, ["unknown"] * len(rows), source="unknown", are_unit=True)
