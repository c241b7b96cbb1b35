"""Geometry of vectors and classes on the sphere, apart from any threshold: spread, collapse, utilization."""

from __future__ import annotations

import numpy as np

from api_schemas.diagnosis import ClassSpread
from api_schemas.report import ClassMeans, Geometry
from common.array_types import Float64s, Int64s
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.sweep import Sweep


def measure_geometry(sweep: Sweep, items: EmbeddingSet) -> Geometry:
    """Geometry of the pairs of a sweep, and of the class means of the items that are its queries.

    Alignment and uniformity (Wang & Isola, arXiv 2005.10242, equations 3 and 6) and tolerance.

    Alignment: mean squared distance of genuine pairs. Uniformity: log of the mean of
    exp(-2 squared distance) over all pairs. Tolerance: mean similarity of genuine pairs
    (Wang & Liu, arXiv 2012.09740, section 4.3). Squared distance is 2 - 2 similarity.
    """
    pairs = sweep.pairs
    total, kernels = 0.0, sweep.kernel_sum
    for part in pairs.iterate_genuine():
        similarities = part.similarities.astype(np.float64)
        total += float(similarities.sum())
        if kernels is not None:
            kernels += float(np.exp(4 * similarities - 4).sum())
    uniformity = None if kernels is None else float(np.log(kernels / (pairs.n_genuine + pairs.n_impostor)))
    if not pairs.n_genuine:
        return Geometry(
            alignment=None, uniformity=uniformity, tolerance=None, class_means=measure_class_means(items)
        )
    tolerance = total / pairs.n_genuine
    return Geometry(
        alignment=2 - 2 * tolerance,
        uniformity=uniformity,
        tolerance=tolerance,
        class_means=measure_class_means(items),
    )


BLOCK = 2048
MOST_MEANS = 20_000  # compared with each other; of more classes so many, evenly over their names


def measure_class_means(items: EmbeddingSet) -> ClassMeans | None:
    """Lengths and angles of class means (Papyan, Han & Donoho, arXiv 2008.08186, NC2); None where fewer than
    two of them differ from the mean of all."""
    means, _ = _compute_means(items)
    if len(means) > MOST_MEANS:
        means = means[np.linspace(0, len(means) - 1, MOST_MEANS).astype(np.int64)]
    lengths = np.linalg.norm(means, axis=1)
    centred = means - means.mean(axis=0)
    distances = np.linalg.norm(centred, axis=1)
    if (distances > 1e-9).sum() < 2:
        return None
    directions = centred / np.maximum(distances, 1e-12)[:, None]
    total, nearest = 0.0, np.empty(len(means))
    for first in range(0, len(means), BLOCK):
        angles = np.degrees(np.arccos(np.clip(directions[first : first + BLOCK] @ directions.T, -1, 1)))
        own = np.arange(len(angles)), np.arange(first, first + len(angles))
        total += float(angles.sum() - angles[own].sum())
        angles[own] = np.inf
        nearest[first : first + BLOCK] = angles.min(axis=1)
    count = len(means)
    return ClassMeans(
        length=float(lengths.mean()),
        length_p05=float(np.quantile(lengths, 0.05)),
        length_p95=float(np.quantile(lengths, 0.95)),
        length_variation=float(distances.std() / distances.mean()),
        angle=total / (count * (count - 1)),
        nearest_angle=float(nearest.mean()),
        nearest_angle_p05=float(np.quantile(nearest, 0.05)),
        nearest_angle_p95=float(np.quantile(nearest, 0.95)),
        even_angle=float(np.degrees(np.arccos(-1 / (count - 1)))),
    )


def measure_class_spread(items: EmbeddingSet) -> list[ClassSpread]:
    """Spread of each class within and to the others; null where a class has one item."""
    means, sizes = _compute_means(items)
    intra = _sum_squared_deviations(items, means) / sizes
    inter = np.square(means - means.mean(axis=0)).sum(axis=1)
    nearest, distance = _find_nearest_means(means)
    rows = []
    for code, label in enumerate(items.classes):
        neighbour = int(nearest[code])
        has_spread = sizes[code] > 1
        rows.append(
            ClassSpread(
                label=str(label),
                n_items=int(sizes[code]),
                intra=float(intra[code]) if has_spread else None,
                inter=float(inter[code]),
                collapse=float(intra[code] / inter[code]) if has_spread and inter[code] > 0 else None,
                nearest=str(items.classes[neighbour]),
                separation=float((intra[code] + intra[neighbour]) / (2 * distance[code]))
                if has_spread and sizes[neighbour] > 1 and distance[code] > 0
                else None,
            )
        )
    return rows


def compute_neural_collapse(items: EmbeddingSet) -> float | None:
    """Trace of within-class covariance times the pseudo-inverse of between-class covariance, per class.

    Papyan, Han & Donoho, arXiv 2008.08186, NC1. None where all class means coincide.
    """
    means, _ = _compute_means(items)
    deviations = items.vectors.astype(np.float64) - means[items.codes]
    within = deviations.T @ deviations / len(items)
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / len(means)
    if not np.trace(between) > 0:
        return None
    return float(np.trace(within @ np.linalg.pinv(between, hermitian=True)) / len(means))


def compute_utilization(tested: EmbeddingSet, training: EmbeddingSet) -> float:
    """Mean squared distance of each tested item to its nearest training item (Metrix, section 4.3)."""
    if tested.dimension != training.dimension:
        raise InputError(
            f"The training vectors have {training.dimension} numbers, the tested ones {tested.dimension}."
        )
    total = 0.0
    for first in range(0, len(tested), BLOCK):
        rows = tested.vectors[first : first + BLOCK]
        best = np.full(len(rows), -1.0, dtype=np.float32)
        for column in range(0, len(training), 2 * BLOCK):
            np.maximum(best, (rows @ training.vectors[column : column + 2 * BLOCK].T).max(axis=1), out=best)
        total += float((2 - 2 * np.minimum(best, 1.0).astype(np.float64)).sum())
    return total / len(tested)


def _compute_means(items: EmbeddingSet) -> tuple[Float64s, Int64s]:
    """Mean vector, float64 [classes, d], and size of each class."""
    sums = np.zeros((len(items.classes), items.dimension))
    np.add.at(sums, items.codes, items.vectors)
    sizes = np.bincount(items.codes)
    return sums / sizes[:, None], sizes


def _sum_squared_deviations(items: EmbeddingSet, means: Float64s) -> Float64s:
    """float64 [classes]: squared distances of the class's items to its mean, summed."""
    squares = np.empty(len(items))
    for first in range(0, len(items), BLOCK):
        rows = slice(first, first + BLOCK)
        squares[rows] = np.square(items.vectors[rows] - means[items.codes[rows]]).sum(axis=1)
    return np.bincount(items.codes, squares).astype(np.float64)


def _find_nearest_means(means: Float64s) -> tuple[Int64s, Float64s]:
    """The nearest other mean of each class and its squared distance."""
    squares = np.square(means).sum(axis=1)
    nearest, distance = np.zeros(len(means), dtype=np.int64), np.zeros(len(means))
    for first in range(0, len(means), BLOCK):
        rows = slice(first, first + BLOCK)
        distances = np.maximum(0.0, squares[rows, None] + squares[None, :] - 2 * means[rows] @ means.T)
        distances[np.arange(len(distances)), np.arange(first, first + len(distances))] = np.inf
        nearest[rows] = distances.argmin(axis=1)
        distance[rows] = distances.min(axis=1)
    return nearest, distance
