"""Population stability index of scores, against the best mixture of known and unknown queries.

``PSI = sum (o - e) ln(o / e)`` over bins, of the observed fractions ``o`` and the expected ``e`` (Siddiqi
2006, Credit Risk Scorecards; by usage below 0.1 is stable, above 0.25 a major shift). Without a shift it
is about ``(1/n + 1/m) chi2`` with the bins less one degrees of freedom (Yurdakul & Naranjo 2020, Statistical
Properties of the Population Stability Index), for samples of ``n`` and ``m``.

How many queries are of no class in the gallery is nobody's fault and changes from hour to hour, so the
expectation is the mixture of two calibrated distributions (scores of known and of unknown queries) whose
share fits best. That share is an answer of its own: how many queries are of unknown classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from common.array_types import Float64s

BINS = 10
EM_STEPS = 200


@dataclass(frozen=True, eq=False)
class MixtureReference:
    """Calibrated scores of known and of unknown queries, in bins of equal weight of both together.

    Attributes:
        edges: float64 [bins - 1], the inner edges, ascending.
        known: float64 [bins], the fractions of known queries; None where nothing is known of them.
        unknown: float64 [bins].
        n_known: how many scores ``known`` was counted from.
        n_unknown: the same of ``unknown``.
    """

    edges: Float64s
    known: Float64s
    unknown: Float64s
    n_known: int
    n_unknown: int

    @classmethod
    def from_scores(cls, known: Float64s, unknown: Float64s) -> MixtureReference | None:
        """The reference of scores, float64 [n] and [m]; None where there are too few, or all are equal."""
        if min(len(known), len(unknown)) < 5 * BINS:
            return None
        steps = np.linspace(0, 1, BINS + 1)[1:-1]
        halves = (
            np.quantile(np.concatenate([part, part]), np.linspace(0, 1, 401)) for part in (known, unknown)
        )
        edges = np.unique(np.quantile(np.concatenate(list(halves)), steps))
        if len(edges) < 3:
            return None
        fractions = (count_bins(part, edges) + 0.5 for part in (known, unknown))
        of_known, of_unknown = (part / part.sum() for part in fractions)
        return cls(edges, of_known, of_unknown, len(known), len(unknown))


@dataclass(frozen=True)
class Stability:
    """How far observed scores are from what was calibrated.

    Attributes:
        psi: population stability index.
        noise: what chance alone exceeds with the probability asked for.
        unknown_share: the share of unknown queries that fits best.
        unknown_share_error: its standard error.
        n: scores observed.
    """

    psi: float
    noise: float
    unknown_share: float
    unknown_share_error: float
    n: int


def count_bins(scores: Float64s, edges: Float64s) -> Float64s:
    """float64 [bins]: how many scores lie in each bin between inner edges."""
    return np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1).astype(float)


def measure_stability(reference: MixtureReference, scores: Float64s, alpha: float) -> Stability:
    """The index of scores, float64 [n], against the best mixture; ``alpha`` is the chance of noise."""
    counts = count_bins(scores, reference.edges)
    n = counts.sum()
    share = _fit_share(counts, reference)
    known, unknown = reference.known, reference.unknown
    expected = (1 - share) * known + share * unknown
    observed = (counts + 0.5) / (n + 0.5 * len(counts))
    psi = float(((observed - expected) * np.log(observed / expected)).sum())
    # a mixture of two samples varies as one of this size does
    reference_variance = (1 - share) ** 2 / reference.n_known + share**2 / reference.n_unknown
    noise = float((1 / n + reference_variance) * chi2.isf(alpha, max(1, len(counts) - 2)))
    information = n * (((unknown - known) ** 2) / expected).sum()
    return Stability(psi, noise, share, float(1 / np.sqrt(max(information, 1e-12))), int(n))


def _fit_share(counts: Float64s, reference: MixtureReference) -> float:
    """The maximum-likelihood share of unknown queries, by expectation maximisation."""
    share = 0.5
    for _ in range(EM_STEPS):
        of_unknown = share * reference.unknown
        expected = of_unknown + (1 - share) * reference.known
        share = float((counts * of_unknown / expected).sum() / counts.sum())
    return share
