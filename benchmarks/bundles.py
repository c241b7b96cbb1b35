"""Bundles of embeddings whose 1:N point is calibrated on a few of their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import GallerySize, OperatingPoint, Score, Target
from decision.class_arrays import ClassArrays
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_model_name
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.class_evidence.plda import ClassScatter, fit_plda
from evaluation.calibration.sets.sources import CalibrationSources
from index.bundle import write_bundle

EVIDENCE = "match by evidence"


def write_matching_bundle(
    out: Path, items: EmbeddingSet, index: IndexConfig, *, classes: int, fpir: float, evidence: bool = False
) -> Path:
    """A bundle of these items that matches; ``classes``: those of the lowest codes calibrate it.

    With ``evidence`` it holds a second point, which scores whole classes and does not decide.
    """
    model_hash = hash_model_name(out.name, items.dimension)
    chosen = items.subset(np.flatnonzero(items.codes < classes))
    size = GallerySize(items=len(chosen), classes=classes)
    target = Target(kind="fpir", value=fpir, gallery=size)
    point = calibrate_threshold(CalibrationSources(chosen), target, name="match", model_hash=model_hash).point
    points, arrays = [point], []
    if evidence:
        by_evidence, class_arrays = build_evidence_point(chosen, point)
        points, arrays = [point, by_evidence], [class_arrays]
    write_bundle(
        out,
        name=out.name,
        items=items,
        model_hash=model_hash,
        index_config=index,
        operating_points=points,
        class_arrays=arrays,
        active={"verify": None, "match": point.id},
    )
    return out


def build_evidence_point(items: EmbeddingSet, nearest: OperatingPoint) -> tuple[OperatingPoint, ClassArrays]:
    """A point by class evidence with PLDA, of these items; its weights are made up, which takes no longer."""
    arrays = ClassArrays(fit_plda(ClassScatter.measure(items), ridge=0.1))
    weights = {"best": 1.0, "mean": 1.0, "tightness": -1.0, "plda": 0.1}
    score = Score(
        kind="evidence",
        form="similarity-plda",
        parameters={**weights, "intercept": 0.0, "usual_tightness": 0.5},
        class_model_sha256=arrays.compute_hash(),
    )
    target = nearest.target.model_copy(update={"aggregate": "evidence"})
    return nearest.with_changes(name=EVIDENCE, score=score, target=target), arrays
