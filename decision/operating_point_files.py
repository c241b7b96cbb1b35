"""Operating points as files: the point, and beside it the cohort that a density score needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api_schemas.operating_point import OperatingPoint
from common.errors import BundleError, InputError
from decision.scorers import Scorer, scorer_of
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings, save_embeddings
from embeddings.hashes import cohort_hash


@dataclass(frozen=True)
class SavedPoint:
    """An operating point with its cohort; None for the score kind cosine."""

    point: OperatingPoint
    cohort: EmbeddingSet | None

    def save(self, path: Path) -> None:
        """Write the cohort, then the point: a point that is there has its cohort."""
        if self.cohort is not None:
            save_embeddings(self.cohort, cohort_path(path))
        self.point.save(path)

    @property
    def scorer(self) -> Scorer:
        """The score that this point thresholds."""
        return scorer_of(self.point.score, None if self.cohort is None else self.cohort.vectors)


def cohort_path(point: Path) -> Path:
    """Where the cohort of a point's file lies: ``far.json`` has ``far.cohort.npz`` beside it."""
    return point.with_suffix(".cohort.npz")


def read_point(path: Path) -> SavedPoint:
    """Read a point and its cohort; raises InputError when either is missing, damaged or the wrong one."""
    point = OperatingPoint.load(path)
    if point.score.kind == "cosine":
        return SavedPoint(point, None)
    cohort = read_embeddings(cohort_path(path))
    if cohort_hash(cohort.vectors) != point.score.cohort_sha256:
        raise InputError(f"{cohort_path(path)} is not the cohort that {path} was calibrated with.")
    return SavedPoint(point, cohort)


def points_of_model(files: Sequence[Path], model_hash: str) -> list[SavedPoint]:
    """Read points; raises BundleError for one of another model."""
    points = [read_point(file) for file in files]
    for file, saved in zip(files, points, strict=True):
        if saved.point.model_hash != model_hash:
            raise BundleError(
                f"{file} belongs to model {saved.point.model_hash[:12]}, the bundle to {model_hash[:12]}: "
                "calibrate again with this model."
            )
    return points
