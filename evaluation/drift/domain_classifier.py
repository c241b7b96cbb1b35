"""Two-sample test by a linear classifier: AUC 0.5 = one distribution, 1 = told apart in every case.

Two samples of vectors are compared by how well Fisher's discriminant tells them apart (domain classifier:
Lopez-Paz & Oquab 2017, Revisiting Classifier Two-Sample Tests; Rabanser et al. 2019, Failing Loudly,
section 3.2). For normal vectors its AUC is ``Phi(delta / sqrt(2))`` with the Mahalanobis distance ``delta``
of the two means (Su & Liu 1993), so that no rows need be held out: what chance adds to ``delta²`` is
taken off.

Groups (the classes of the items) keep a changed mix of classes from counting as drift: rows are compared
within their group alone. Chance is what is left when the two samples of each group are exchanged or not, at
random (Fisher's permutations; their mean and variance have closed forms), of the differences about their
mean. So queries of a class that happen to differ from its few items, each class in a way of its own, are no
drift; a way that *all* classes have moved is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtri, ndtr

from common.array_types import Float64s, Int64s, UnitVectors

RIDGE = 0.1  # times the mean variance of a direction
MIN_GROUPS = 8


@dataclass(frozen=True)
class DomainShift:
    """How well a classifier tells two samples apart, and what chance alone gives.

    Attributes:
        distance: squared Mahalanobis distance of the means, under the covariance about both of them.
        chance: its mean over exchanged samples.
        spread: their standard deviation.
        between: times a distance is the fraction of that covariance that the distance itself makes.
        n: rows of the recent sample that were compared.
        groups: how many they are of, counted by their weights.
    """

    distance: float
    chance: float
    spread: float
    between: float
    n: int
    groups: float

    @property
    def auc(self) -> float:
        """Of a linear classifier, without what chance adds."""
        return self._convert(self.distance - self.chance)

    def find_limit(self, alpha: float) -> float:
        """The AUC that chance alone exceeds with probability ``alpha``."""
        return self._convert(self._find_quantile(alpha) - self.chance)

    def find_lower(self, alpha: float) -> float:
        """The AUC less what chance exceeds with probability ``alpha``; over 0.5 is drift."""
        return self._convert(self.distance - self._find_quantile(alpha))

    def _convert(self, distance: float) -> float:
        """The AUC at a distance, which within the samples is larger than about both (Sherman-Morrison)."""
        distance = max(0.0, distance)
        return float(ndtr(np.sqrt(distance / max(1e-9, 1 - self.between * distance) / 2)))

    def _find_quantile(self, alpha: float) -> float:
        """Of distances by chance: F of as many degrees of freedom as mean and spread tell (Dempster 1958)."""
        if self.spread <= 0:
            return self.chance
        freedom = 2 * (self.chance / self.spread) ** 2
        return self.chance * float(fdtri(freedom, freedom * max(1.0, self.groups - 1), 1 - alpha))


def measure_domain_shift(
    reference: UnitVectors,
    recent: UnitVectors,
    reference_groups: Int64s | None = None,
    recent_groups: Int64s | None = None,
    *,
    min_rows: int = 100,
) -> DomainShift | None:
    """The shift of ``recent`` float32 [m, d] from ``reference`` float32 [n, d].

    Args:
        reference_groups: int64 [n], the class of each row; None compares the samples as they are.
        recent_groups: int64 [m].
        min_rows: None is returned where fewer rows of either sample can be compared, or fewer than 8 groups.
    """
    if reference_groups is None or recent_groups is None:
        # pairs of any two rows, exchanged one by one
        n, rng = min(len(reference), len(recent)), np.random.default_rng(0)
        reference, recent = rng.permutation(reference)[:n], rng.permutation(recent)[:n]
        reference_groups = recent_groups = np.arange(n)
    at, to = np.isin(reference_groups, recent_groups), np.isin(recent_groups, reference_groups)
    names, groups = np.unique(np.concatenate([reference_groups[at], recent_groups[to]]), return_inverse=True)
    if min(at.sum(), to.sum()) < min_rows or len(names) < MIN_GROUPS:
        return None
    rows = np.concatenate([reference[at], recent[to]]).astype(np.float64)
    return _compare(rows, groups, np.repeat([0.0, 1.0], [at.sum(), to.sum()]))


def _compare(rows: Float64s, groups: Int64s, is_recent: Float64s) -> DomainShift:
    """The shift of rows [n, d] that are recent from those of the same groups that are not.

    Args:
        groups: int64 [n], from 0 without gaps, each with rows of both samples.
        is_recent: 0 or 1, [n].
    """
    sizes, of_recent = np.bincount(groups), np.bincount(groups, is_recent)
    centred = rows - _sum(rows, groups)[groups] / sizes[groups, None]
    freedom = max(1, len(rows) - len(sizes))
    covariance = centred.T @ centred / freedom
    d = len(covariance)
    covariance += (RIDGE * np.trace(covariance) / d + np.finfo(float).tiny) * np.eye(d)
    # differences of two means, by their precision
    weights = of_recent * (sizes - of_recent) / sizes
    parts = weights / weights.sum()
    differences = _sum(centred * (is_recent - (of_recent / sizes)[groups])[:, None], groups)
    white = np.linalg.solve(np.linalg.cholesky(covariance), differences.T).T / weights.sum()
    mean = white.sum(axis=0)
    left = (white - parts[:, None] * mean) / np.sqrt(1 - parts)[:, None]
    lengths = np.square(left).sum(axis=1)
    spread = np.sqrt(max(0.0, 2 * (np.square(left.T @ left).sum() - np.square(lengths).sum())))
    return DomainShift(
        distance=float(mean @ mean),
        chance=float(lengths.sum()),
        spread=float(spread),
        between=float(weights.sum() / freedom),
        n=int(is_recent.sum()),
        groups=float(1 / np.square(parts).sum()),
    )


def _sum(rows: Float64s, groups: Int64s) -> Float64s:
    """float64 [groups, d]."""
    sums = np.zeros((groups.max() + 1, rows.shape[1]))
    np.add.at(sums, groups, rows)
    return sums
