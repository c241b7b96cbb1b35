"""Operating points as files: the point, and beside it the cohort and the class model its score needs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api_schemas.operating_point import OperatingPoint
from common.atomic_files import write_atomically
from common.errors import InputError
from decision.class_arrays import ClassArrays, Plda
from decision.errors import check_model
from decision.scorer_registry import needs_class_arrays, needs_cohort, open_scorer
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings, save_embeddings
from embeddings.hashes import hash_cohort
from embeddings.npy import read_whole_array, report_damage

PLDA_ARRAYS = ("mean", "projection", "between")


@dataclass(frozen=True)
class SavedPoint:
    """An operating point with its cohort and the arrays of its class model; None where it needs none."""

    point: OperatingPoint
    cohort: EmbeddingSet | None
    class_arrays: ClassArrays | None = None

    def save(self, path: Path) -> None:
        """Write what the point needs, then the point: no point on disk lacks its cohort or class model.

        Folders that are missing are made: nothing that took minutes is lost for one.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.cohort is not None:
            save_embeddings(self.cohort, get_cohort_path(path))
        if self.class_arrays is not None:
            save_class_arrays(self.class_arrays, get_class_arrays_path(path))
        self.point.save(path)

    @property
    def scorer(self) -> Scorer:
        vectors = None if self.cohort is None else self.cohort.vectors
        return open_scorer(self.point.score, vectors, self.class_arrays)


def get_cohort_path(point: Path) -> Path:
    """The cohort's file beside a point's: ``far.cohort.npz`` for ``far.json``."""
    return point.with_suffix(".cohort.npz")


def get_class_arrays_path(point: Path) -> Path:
    """The class model's file beside a point's: ``fpir.classes.npz`` for ``fpir.json``."""
    return point.with_suffix(".classes.npz")


def read_point(path: Path) -> SavedPoint:
    """Read a point, its cohort and its class model; raises InputError when one is missing, damaged or the
    wrong one."""
    point = OperatingPoint.load(path)
    cohort, class_arrays = None, None
    if needs_cohort(point.score):
        cohort = read_embeddings(get_cohort_path(path))
        if hash_cohort(cohort.vectors) != point.score.cohort_sha256:
            raise _report_other(get_cohort_path(path), "cohort", path)
    if needs_class_arrays(point.score):
        class_arrays = read_class_arrays(get_class_arrays_path(path))
        if class_arrays.compute_hash() != point.score.class_model_sha256:
            raise _report_other(get_class_arrays_path(path), "class model", path)
    return SavedPoint(point, cohort, class_arrays)


def _report_other(file: Path, what: str, point: Path) -> InputError:
    return InputError(
        f"{file} is not the {what} that {point} was calibrated with: put that file back, or calibrate again."
    )


def save_class_arrays(arrays: ClassArrays, path: Path) -> None:
    """Write the arrays as ``.npz``; a crash leaves the old file or none."""
    content: dict[str, NDArray[np.generic]] = {}
    if arrays.plda is not None:
        content |= {name: getattr(arrays.plda, name) for name in PLDA_ARRAYS}
    if arrays.cohort_labels is not None:
        content["cohort_labels"] = arrays.cohort_labels
    buffer = io.BytesIO()
    np.savez(buffer, **content)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def read_class_arrays(path: Path) -> ClassArrays:
    """Read what ``save_class_arrays`` wrote; raises InputError for a file that is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the point beside it needs the class model in it.")
    arrays: dict[str, NDArray[np.generic]] = {}
    with report_damage(path, "a class model"), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name not in (*PLDA_ARRAYS, "cohort_labels"):
                raise InputError(f"{path} holds the array '{name}', which no class model has.")
            with archive.open(member) as stream:
                arrays[name] = read_whole_array(stream, member.file_size, path)
    labels = arrays.pop("cohort_labels", None)
    if not arrays:
        return ClassArrays(None, None if labels is None else labels.astype(np.str_))
    try:
        mean, projection, between = (np.asarray(arrays[name], dtype=np.float64) for name in PLDA_ARRAYS)
    except (KeyError, ValueError):
        raise InputError(f"{path} is not a class model: it needs {', '.join(PLDA_ARRAYS)}.") from None
    shapes = (mean.ndim, between.ndim, projection.shape)
    if shapes != (1, 1, (mean.size, between.size)):
        raise InputError(f"{path} is damaged: the shapes of its arrays do not belong together.")
    return ClassArrays(Plda(mean, projection, between), None if labels is None else labels.astype(np.str_))


def read_points_of_model(files: Sequence[Path], model_hash: str) -> list[SavedPoint]:
    """Read points with their cohorts; raises OtherModel for a point of another model."""
    points = [read_point(file) for file in files]
    for file, saved in zip(files, points, strict=True):
        check_model(saved.point, model_hash, file)
    return points
