"""The arrays of a class model: what a score of a query with a class needs besides its parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from common.array_types import Float64s, Texts


@dataclass(frozen=True, eq=False)
class Plda:
    """A two-covariance model (Prince & Elder 2007; Brummer & de Villiers 2010) in diagonal coordinates.

    ``(x - mean) @ projection`` has within-class covariance I and between-class covariance ``between``.

    Attributes:
        mean: float64 [d].
        projection: float64 [d, k].
        between: float64 [k], positive.
    """

    mean: Float64s
    projection: Float64s
    between: Float64s


@dataclass(frozen=True, eq=False)
class ClassArrays:
    """Arrays that lie beside an operating point; None for what its form does not need.

    Attributes:
        cohort_labels: text [n]: the class of each vector of the cohort.
    """

    plda: Plda | None = None
    cohort_labels: Texts | None = None

    def compute_hash(self) -> str:
        """SHA-256 over shapes, numbers (float64, little-endian) and labels."""
        digest = hashlib.sha256()
        for array in (self.plda.mean, self.plda.projection, self.plda.between) if self.plda else ():
            digest.update(np.asarray(array.shape, dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(array, dtype="<f8").data)
        if self.cohort_labels is not None:
            digest.update(b"labels" + "\0".join(self.cohort_labels.tolist()).encode())
        return digest.hexdigest()
