"""Bundles of embeddings whose 1:N point is calibrated on a few of their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import GallerySize, Target
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_model_name
from evaluation.calibration.calibrate import calibrate_threshold
from index.bundle import write_bundle


def write_matching_bundle(
    out: Path, items: EmbeddingSet, index: IndexConfig, *, classes: int, fpir: float
) -> Path:
    """A bundle of these items that matches; ``classes``: those of the lowest codes calibrate it."""
    model_hash = hash_model_name(out.name, items.dimension)
    chosen = items.subset(np.flatnonzero(items.codes < classes))
    size = GallerySize(items=len(chosen), classes=classes)
    target = Target(kind="fpir", value=fpir, gallery=size)
    point = calibrate_threshold(chosen, target, name="match", model_hash=model_hash, gallery=size).point
    write_bundle(
        out,
        name=out.name,
        items=items,
        model_hash=model_hash,
        index_config=index,
        operating_points=[point],
        active={"verify": None, "match": point.id},
    )
    return out
