"""Operating points as files: the point, and beside it the cohort if its score needs one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api_schemas.operating_point import OperatingPoint
from common.errors import InputError
from decision.errors import check_model
from decision.scorers import Scorer, needs_cohort, open_scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings, save_embeddings
from embeddings.hashes import hash_cohort


@dataclass(frozen=True)
class SavedPoint:
    """An operating point with its cohort; None for a score that needs none."""

    point: OperatingPoint
    cohort: EmbeddingSet | None

    def save(self, path: Path) -> None:
        """Write the cohort, then the point: no point on disk lacks its cohort."""
        if self.cohort is not None:
            save_embeddings(self.cohort, get_cohort_path(path))
        self.point.save(path)

    @property
    def scorer(self) -> Scorer:
        return open_scorer(self.point.score, None if self.cohort is None else self.cohort.vectors)


def get_cohort_path(point: Path) -> Path:
    """The cohort's file beside a point's: ``far.cohort.npz`` for ``far.json``."""
    return point.with_suffix(".cohort.npz")


def read_point(path: Path) -> SavedPoint:
    """Read a point and its cohort; raises InputError when either is missing, damaged or the wrong one."""
    point = OperatingPoint.load(path)
    if not needs_cohort(point.score):
        return SavedPoint(point, None)
    cohort = read_embeddings(get_cohort_path(path))
    if hash_cohort(cohort.vectors) != point.score.cohort_sha256:
        raise InputError(
            f"{get_cohort_path(path)} is not the cohort that {path} was calibrated with: "
            "put that file back, or calibrate again."
        )
    return SavedPoint(point, cohort)


def read_points_of_model(files: Sequence[Path], model_hash: str) -> list[SavedPoint]:
    """Read points with their cohorts; raises OtherModel for a point of another model."""
    points = [read_point(file) for file in files]
    for file, saved in zip(files, points, strict=True):
        check_model(saved.point, model_hash, file)
    return points
