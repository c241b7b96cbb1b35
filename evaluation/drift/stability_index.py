"""Population stability index of scores, against the best mixture of known and unknown queries.

``PSI = sum (o - e) ln(o / e)`` over bins, of the observed fractions ``o`` and the expected ``e`` (Siddiqi
2006, Credit Risk Scorecards; by usage below 0.1 is stable, above 0.25 a major shift). Without a shift it
is about ``(1/n + 1/m) chi2`` with the bins less one degrees of freedom (Yurdakul & Naranjo 2020, Statistical
Properties of the Population Stability Index), for samples of ``n`` and ``m``.

How many queries are of no class in the gallery changes from hour to hour, without any fault, so the
expectation is a mixture of two calibrated distributions, scores of known and of unknown queries. Over all
scores the share that fits best says how many queries are of unknown classes. Which low scores those have
depends on who they are, which no calibration can know; the index is best taken of the scores from where
unknown queries are rare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from common.array_types import Float64s

MIN_SCORES = 50
EM_STEPS = 200


@dataclass(frozen=True, eq=False)
class MixtureReference:
    """Calibrated scores of known and of unknown queries, in bins of equal weight of the known ones.

    Attributes:
        lowest: scores below are left out, of the reference and of what is compared with it.
        edges: float64 [bins - 1], the inner edges, ascending.
        known: float64 [bins], the fractions of known queries.
        unknown: float64 [bins], of unknown ones; None where there are too few to take them into account.
        n_known: how many scores ``known`` was counted from.
        n_unknown: the same of ``unknown``.
        reach: the fractions of all known and of all unknown queries that have such scores.
    """

    lowest: float
    edges: Float64s
    known: Float64s
    unknown: Float64s | None
    n_known: int
    n_unknown: int
    reach: tuple[float, float]

    @classmethod
    def from_scores(
        cls, known: Float64s, unknown: Float64s, bins: int = 10, lowest: float = -np.inf
    ) -> MixtureReference | None:
        """The reference of scores, float64 [n] and [m]; None where few are known, or all are equal."""
        n = max(1, len(known)), max(1, len(unknown))
        known, unknown = known[known >= lowest], unknown[unknown >= lowest]
        if len(known) < MIN_SCORES:
            return None
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
        if len(edges) < 3:
            return None
        of_known = _smooth(count_bins(known, edges))
        of_unknown = _smooth(count_bins(unknown, edges)) if len(unknown) >= MIN_SCORES else None
        reach = len(known) / n[0], len(unknown) / n[1]
        return cls(lowest, edges, of_known, of_unknown, len(known), len(unknown), reach)

    def restrict_share(self, share: float) -> float:
        """The share of unknown queries among those that have such scores, given that among all."""
        if self.unknown is None:
            return 0.0
        known, unknown = (1 - share) * self.reach[0], share * self.reach[1]
        return unknown / max(known + unknown, 1e-12)


@dataclass(frozen=True)
class Stability:
    """How far observed scores are from what was calibrated.

    Attributes:
        psi: population stability index.
        noise: what chance alone exceeds with the probability asked for.
        unknown_share: the share of unknown queries that fits best, or that was given.
        unknown_share_error: its standard error; 0 for a given one.
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


def measure_stability(
    reference: MixtureReference, scores: Float64s, alpha: float, unknown_share: float | None = None
) -> Stability | None:
    """The index of scores, float64 [n], against a mixture; None for too few scores.

    Args:
        alpha: the probability of more than ``noise`` by chance.
        unknown_share: of all queries; None takes what fits best.
    """
    scores = scores[scores >= reference.lowest]
    if len(scores) < MIN_SCORES:
        return None
    counts = count_bins(scores, reference.edges)
    n = counts.sum()
    share, error = (
        _fit_share(counts, reference)
        if unknown_share is None
        else (reference.restrict_share(unknown_share), 0.0)
    )
    known, unknown = reference.known, reference.known if reference.unknown is None else reference.unknown
    expected = (1 - share) * known + share * unknown
    observed = _smooth(counts)
    psi = float(((observed - expected) * np.log(observed / expected)).sum())
    # a mixture of two samples varies as one of this size does
    reference_variance = (1 - share) ** 2 / reference.n_known + share**2 / max(1, reference.n_unknown)
    noise = float((1 / n + reference_variance) * chdtri(len(counts) - 1, alpha))
    return Stability(psi, noise, share, error, int(n))


def fit_share(counts: Float64s, known: Float64s, unknown: Float64s) -> float:
    """The share of unknown queries that explains counts best, float64 [bins], by expectation maximisation.

    ``known`` and ``unknown`` are fractions of which none is 0, and ``counts`` are not all 0.
    """
    share = 0.5
    for _ in range(EM_STEPS):
        of_unknown = share * unknown
        share = float((counts * of_unknown / (of_unknown + (1 - share) * known)).sum() / counts.sum())
    return share


def _smooth(counts: Float64s) -> Float64s:
    """Fractions, none of them 0."""
    return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))


def _fit_share(counts: Float64s, reference: MixtureReference) -> tuple[float, float]:
    """The maximum-likelihood share of unknown queries, by expectation maximisation, and its error."""
    if reference.unknown is None:
        return 0.0, 0.0
    share = fit_share(counts, reference.known, reference.unknown)
    expected = share * reference.unknown + (1 - share) * reference.known
    information = counts.sum() * ((reference.unknown - reference.known) ** 2 / expected).sum()
    return share, float(1 / np.sqrt(max(information, 1e-12)))
