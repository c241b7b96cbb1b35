"""Confidence bounds of rates, from resampling classes (docs/specification.md, Intervals).

A fraction of impostor pairs is a U-statistic of order two over classes: every pair of items belongs to
a pair of classes. With ``D = A - F N`` (accepted pairs minus the fraction F of all pairs, per pair of
classes) Hoeffding's decomposition is ``D_ij = r_i + r_j + E_ij`` with rows of ``E`` summing to zero.
Drawing classes with replacement reproduces the variance of the ``E`` part once, and once more in
each of the two row effects, which carry its noise: three times in all, where newly sampled classes
bring it once (Owen 2007, The pigeonhole bootstrap, section 3). Here the row effects are shrunk by the
factor that removes pair noise before they are drawn, and a class drawn twice is never its own impostor,
so that the resampled fractions have the variance of fractions over newly sampled classes. The quantiles are
corrected for bias and skewness (BCa, Efron 1987) and, because a handful of classes in dense regions may
carry the whole variance, expanded to a t distribution whose degrees of freedom come from the fourth
moment of the classes' influence (Satterthwaite). Both corrections take the row effects as they were
measured, not as they were shrunk: noise has next to no third moment of its own, so shrinking would remove
real skewness, and the variance is only as well known as the rows that it was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from common.array_types import Float64s

DENSE_CLASSES = 2048  # up to here a matrix over pairs of classes may be dense; beyond, mostly zeros
SMALL = 256  # classes of a matrix that is always dense
FILLED = 0.1  # of a larger one, from which on it is


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval and its one-sided upper bound, at one confidence.

    Corrected for skewness, quantiles of low confidence may lie on the other side of the estimate: none is
    shown beyond it, so that no bound is below what was seen.
    """

    estimate: float
    lower: float
    upper: float
    upper_bound: float

    @classmethod
    def around(cls, estimate: float, lower: float, upper: float, upper_bound: float) -> Interval:
        """The interval with ends and bound that do not contradict the estimate."""
        return cls(estimate, min(lower, estimate), max(upper, estimate), max(upper_bound, estimate))

    def transform(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the quantity."""
        return Interval(
            *(function(value) for value in (self.estimate, self.lower, self.upper, self.upper_bound))
        )


class PairFractions:
    """K fractions of one population of impostor pairs, and how they vary with the classes.

    ``F_k = sum_{i != j} A_k,ij / sum_{i != j} N_ij`` with ``N_ij = (a_i b_j + a_j b_i) / 2``.

    Args:
        matrices: K symmetric [classes, classes] with a zero diagonal, dense or scipy sparse: the
            (weighted) accepted pairs between two classes.
        a, b: float [classes]; for pairs of items both are the class sizes.
        weights: float [replicates, classes] from ``draw_classes``.
    """

    def __init__(self, matrices: Sequence[Any], a: Float64s, b: Float64s, weights: Float64s) -> None:
        self.n = len(a)
        self.matrices, self.a, self.b, self.weights = matrices, a, b, weights
        ab = float(a @ b)
        self.total = float(a.sum() * b.sum() - ab)
        self.values = np.array([float(matrix.sum()) / self.total for matrix in matrices])
        pair_rows = (a * (b.sum() - b) + b * (a.sum() - a)) / 2
        squares = 0.5 * (float(a @ a) * float(b @ b) + ab**2) - float((a * a) @ (b * b))
        self.rows = np.array(
            [
                (np.asarray(matrix.sum(axis=1)).ravel() - value * pair_rows) / (self.n - 2)
                for matrix, value in zip(matrices, self.values, strict=True)
            ]
        )
        # Sums of E_k E_l over ordered pairs, by Pythagoras: rows of E sum to zero.
        residual = np.empty((len(matrices), len(matrices)))
        for k, first in enumerate(matrices):
            for m, second in enumerate(matrices):
                product = first.multiply(second) if hasattr(first, "multiply") else first * second
                centred = (
                    float(product.sum())
                    - self.values[m] * float(a @ (first @ b))
                    - self.values[k] * float(a @ (second @ b))
                    + self.values[k] * self.values[m] * squares
                )
                residual[k, m] = centred - 2 * (self.n - 2) * float(self.rows[k] @ self.rows[m])
        self.residual = residual

    @cached_property
    def drawn(self) -> tuple[Float64s, Float64s]:
        """Changes of the fractions when classes are drawn, and the part linear in the draws, [K, replicates].

        The only part that takes long: a product of every matrix with all draws.
        """
        weights = self.weights
        pairs = (weights @ self.a) * (weights @ self.b) - (weights**2) @ (self.a * self.b)
        pairs = np.maximum(pairs, np.finfo(float).tiny)
        quadratic, linear = [], []
        for matrix, value, row in zip(self.matrices, self.values, self.rows, strict=True):
            drawn = np.einsum("bc,cb->b", weights, np.asarray(matrix @ weights.T))
            quadratic.append(drawn / pairs - value)
            linear.append(2 * ((weights @ row) * weights.sum(axis=1) - (weights**2) @ row) / pairs)
        return np.array(quadratic), np.array(linear)

    def compute_interval(
        self, function: Callable[[Float64s], Float64s], gradient: Float64s, confidence: float
    ) -> Interval:
        """Interval of a smooth function of the K fractions.

        Args:
            function: float [K, m] -> float [m]; the quantity, or an increasing function of it.
            gradient: float [K], of the function at ``values``.
            confidence: of the one-sided bound and of the two-sided interval.
        """
        influence = self.compute_influence(gradient)
        by_class, by_pair = self.compute_variance(gradient)
        measured = float(influence @ influence)
        shrinkage = np.sqrt(by_class / measured) if measured > 0 else 0.0
        quadratic, linear = self.drawn
        replicates = self.values[:, None] + quadratic - (1 - shrinkage) * linear
        return _compute_bca_interval(
            float(function(self.values[:, None])[0]),
            function(replicates),
            influence,
            by_class + by_pair,
            confidence,
        )

    def approximate_bound(self, confidence: float) -> float:
        """About the upper bound of the first fraction, from its variance alone, on a scale of logarithms."""
        gradient = np.zeros(len(self.values))
        gradient[0] = 1.0
        variance = sum(self.compute_variance(gradient))
        value = float(self.values[0])
        if not value > 0 or not variance > 0:
            return value
        influence = self.compute_influence(gradient)
        freedom = compute_degrees_of_freedom(influence, self.n, variance) if influence.any() else np.inf
        quantile = stdtrit(freedom, confidence) if np.isfinite(freedom) else ndtri(confidence)
        return value * float(np.exp(min(quantile * np.sqrt(variance) / value, 50.0)))

    def compute_influence(self, gradient: Float64s) -> Float64s:
        """float [classes]: the influence of each class on a combination of the fractions, float [K]."""
        return np.asarray(2 * (gradient @ self.rows) * (self.n - 1) / self.total)

    def compute_variance(self, gradient: Float64s) -> tuple[float, float]:
        """Variance of a combination of the fractions, float [K]: the part of classes and that of pairs."""
        row = gradient @ self.rows
        noise = max(float(gradient @ self.residual @ gradient), 0.0)
        rows = max(0.0, float(row @ row) - noise / (self.n - 2) ** 2)
        return 4 * rows * ((self.n - 1) / self.total) ** 2, 2 * noise / self.total**2


def estimate_pair_fraction_interval(
    matrix: Any, sizes: Float64s, weights: Float64s, confidence: float
) -> Interval:
    """Interval of the fraction of impostor pairs that are accepted (FAR) over fresh classes.

    ``matrix`` holds accepted pairs as in ``PairFractions``; ``sizes`` float [classes]: items per class.
    """
    fractions = PairFractions([matrix], sizes, sizes, weights)
    return fractions.compute_interval(lambda f: f[0], np.ones(1), confidence)


def estimate_class_fraction_interval(
    events: Float64s, totals: Float64s, weights: Float64s, confidence: float
) -> Interval:
    """Interval of ``sum(events) / sum(totals)`` over newly sampled classes, e.g. FRR: one sum per class."""
    fraction = float(events.sum() / totals.sum())
    drawn = np.maximum(weights @ totals, np.finfo(float).tiny)
    influence = (events - fraction * totals) / totals.sum()
    return _compute_bca_interval(
        fraction, (weights @ events) / drawn, influence, float(influence @ influence), confidence
    )


def build_class_matrix(
    first: NDArray[Any], second: NDArray[Any], amounts: NDArray[Any] | None, n: int
) -> Any:
    """Symmetric [n, n] that adds half of each amount (1 unless given) at (first, second) and its transpose.

    Dense for few classes or many pairs, scipy sparse otherwise.
    """
    values = np.full(len(first), 0.5) if amounts is None else 0.5 * np.asarray(amounts, dtype=np.float64)
    if n <= DENSE_CLASSES and (n <= SMALL or len(values) > FILLED * n * n):
        half = np.bincount(
            first.astype(np.int64) * n + second.astype(np.int64), weights=values, minlength=n * n
        ).reshape(n, n)
        return half + half.T
    from scipy import sparse

    half_sparse = sparse.coo_array((values, (first, second)), shape=(n, n)).tocsr()
    return (half_sparse + half_sparse.T).tocsr()


def compute_degrees_of_freedom(influence: Float64s, n: int, variance: float) -> float:
    """Degrees of freedom (Satterthwaite) of the variance of a statistic over n classes, at least 3.

    ``influence`` float [classes], of classes like these, not all 0; ``variance`` with pair noise shrunk.
    """
    measured = float(influence @ influence)
    kurtosis = len(influence) * float((influence**4).sum()) / measured**2
    return max(3.0, 2 * n / max(kurtosis - 1, 1e-9) * (variance / measured) ** 2)


def _compute_bca_interval(
    estimate: float, replicates: Float64s, influence: Float64s, variance: float, confidence: float
) -> Interval:
    """BCa interval with t quantiles, of an estimate with a known ``variance``.

    ``replicates`` float [m] have that variance; ``influence`` float [classes] includes the noise of pairs.
    """
    if variance < np.finfo(float).tiny ** 0.5:  # nothing varies, or an extrapolated rate that underflows
        return Interval(estimate, estimate, estimate, estimate)
    below = float(np.mean(replicates < estimate) + 0.5 * np.mean(replicates == estimate))
    bias = float(ndtri(np.clip(below, 0.05, 0.95)))
    acceleration = float(((influence / np.sqrt(variance)) ** 3).sum()) / 6
    freedom = (
        compute_degrees_of_freedom(influence, len(influence), variance)
        if influence @ influence > 0
        else np.inf
    )
    levels = [(1 - confidence) / 2, (1 + confidence) / 2, confidence]
    quantiles = stdtrit(freedom, levels) if np.isfinite(freedom) else ndtri(levels)
    shifted = bias + quantiles
    corrected = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 0.1))
    lower, upper, upper_bound = np.quantile(replicates, corrected)
    return Interval.around(estimate, float(lower), float(upper), float(upper_bound))
