"""Fit the two covariances of PLDA from class means and the scatter around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from common.array_types import Float64s
from decision.class_arrays import Plda
from embeddings.embedding_set import EmbeddingSet

LEAST_BETWEEN = 0.01  # variance between classes, as a ratio of that within, below which an axis is dropped
LEAST_WITHIN = 1e-9  # variance of unit rows around their class means; less is rounding
MOST_ITEMS = 100  # of a class
LEAST_CLASSES = 10


@dataclass(frozen=True, eq=False)
class ClassScatter:
    """Sums over classes from which covariances follow; those of disjoint classes add up.

    Attributes:
        classes, items: how many; ``freedom`` is items less classes.
        within: float64 [d, d]: sum over items of the outer product of their distance to the class mean.
        means: float64 [d]: sum of class means; ``outer``: of their outer products.
        inverse_sizes: sum over classes of 1 / items.
    """

    classes: int
    items: int
    within: Float64s
    means: Float64s
    outer: Float64s
    inverse_sizes: float

    @classmethod
    def measure(cls, items: EmbeddingSet) -> ClassScatter:
        """The sums of a set; of large classes the first items count."""
        order = np.argsort(items.codes, kind="stable")
        codes = items.codes[order]
        starts = np.searchsorted(codes, np.arange(len(items.classes)))
        rank = np.arange(len(codes)) - starts[codes]
        order, codes = order[rank < MOST_ITEMS], codes[rank < MOST_ITEMS]
        rows = items.vectors[order].astype(np.float64)
        sizes = np.bincount(codes)
        means = np.add.reduceat(rows, np.searchsorted(codes, np.arange(len(sizes))), axis=0) / sizes[:, None]
        rows -= means[codes]
        return cls(
            len(sizes), len(codes), rows.T @ rows, means.sum(0), means.T @ means, float((1 / sizes).sum())
        )

    def __add__(self, other: ClassScatter) -> ClassScatter:
        return ClassScatter(
            self.classes + other.classes,
            self.items + other.items,
            self.within + other.within,
            self.means + other.means,
            self.outer + other.outer,
            self.inverse_sizes + other.inverse_sizes,
        )

    @property
    def supports_plda(self) -> bool:
        """Whether there are enough classes, and items beyond one a class that are no copies."""
        enough = self.classes >= LEAST_CLASSES and self.items >= 2 * self.classes
        return enough and float(np.trace(self.within)) > LEAST_WITHIN * self.items


def fit_plda(scatter: ClassScatter, ridge: float) -> Plda:
    """Moment estimates of both covariances, diagonalised together (``S_b v = b S_w v``).

    The covariance of class means is that between classes plus the mean of S_w / n, which is taken off. That
    within classes is brought a part ``ridge`` of the way towards the identity times its mean variance. Axes
    that hardly separate classes are dropped.
    """
    n = scatter.classes
    mean = scatter.means / n
    within = scatter.within / max(scatter.items - n, 1)
    d = len(mean)
    between = (scatter.outer - n * np.outer(mean, mean)) / (n - 1) - within * (scatter.inverse_sizes / n)
    shrunk = (1 - ridge) * within + ridge * float(np.trace(within)) / d * np.eye(d)
    # fewer axes than classes are above it: the rest is not computed
    values, axes = linalg.eigh(between, shrunk, subset_by_value=[LEAST_BETWEEN, np.inf])
    return Plda(mean, np.ascontiguousarray(axes[:, ::-1]), values[::-1].copy())
