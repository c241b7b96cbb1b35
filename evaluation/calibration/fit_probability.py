"""From score to the probability of a match: three fits, and the one that held-out classes prefer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar

from api_schemas.operating_point import Probability
from common.array_types import Bools, Float32s, Float64s, Int64s
from decision.match_probability import match_probability
from evaluation.calibration.logistic_regression import logistic

PRIOR = 0.5
FOLDS = 5
POINTS = 101  # of an isotonic fit that are kept
BINS = 15


@dataclass(frozen=True)
class LabelledScores:
    """Scores of pairs with the truth, and the classes of both ends.

    Attributes:
        scores: float64 [m].
        genuine: bool [m].
        first, second: int64 [m], codes of the classes; equal for genuine pairs.
    """

    scores: Float64s
    genuine: Bools
    first: Int64s
    second: Int64s

    def part(self, rows: Bools) -> LabelledScores:
        """The rows of a mask."""
        return LabelledScores(self.scores[rows], self.genuine[rows], self.first[rows], self.second[rows])

    @property
    def weights(self) -> Float64s:
        """float64 [m]: genuine and impostor pairs weigh one half each."""
        n = max(int(self.genuine.sum()), 1)
        m = max(len(self.genuine) - int(self.genuine.sum()), 1)
        return np.where(self.genuine, PRIOR / n, (1 - PRIOR) / m)


@dataclass(frozen=True)
class Reliability:
    """How well probabilities hold at a prior: bins of equal weight, and three summary figures.

    Attributes:
        predicted, observed, share: float64 [bins]: mean probability, share of matches, weight.
        ece: weighted mean of ``|predicted - observed|``.
        brier: mean squared error.
        log_loss: mean negative log-likelihood, in nats.
    """

    predicted: Float64s
    observed: Float64s
    share: Float64s
    ece: float
    brier: float
    log_loss: float


def fit_platt(genuine: Float32s, impostor: Float32s) -> Probability:
    """Log-odds linear in the score (Platt 1999), at prior 0.5: each side weighs one half.

    Targets are Platt's ``(n+1)/(n+2)`` and ``1/(n+2)``, so that separable scores give a finite slope.

    Args:
        genuine, impostor: float32 scores of pairs, neither empty.
    """
    scores = np.concatenate([genuine, impostor]).astype(np.float64)
    n, m = len(genuine), len(impostor)
    targets = np.concatenate([np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))])
    weights = np.concatenate([np.full(n, PRIOR / n), np.full(m, (1 - PRIOR) / m)])
    slope, intercept = logistic(np.stack([scores, np.ones_like(scores)]), targets, weights)
    return Probability(kind="platt", parameters={"slope": slope, "intercept": intercept}, prior=PRIOR)


def fit_temperature(data: LabelledScores) -> Probability:
    """One parameter: log-odds ``(score - offset) / temperature``.

    The offset is the score at which as many genuine pairs lie below as impostor pairs above, where
    even odds belong at prior 0.5.
    """
    genuine, impostor = np.sort(data.scores[data.genuine]), np.sort(data.scores[~data.genuine])
    grid = np.quantile(data.scores, np.linspace(0, 1, 2001))
    below = np.searchsorted(genuine, grid) / len(genuine)
    above = 1 - np.searchsorted(impostor, grid) / len(impostor)
    offset = float(grid[np.argmin(np.abs(below - above))])
    centred = data.scores - offset
    spread = max(float(centred.std()), 1e-9)
    signed, weights = np.where(data.genuine, -centred, centred) / spread, data.weights
    found = minimize_scalar(
        lambda step: float(weights @ np.logaddexp(0, np.exp(step) * signed)),
        bounds=(np.log(0.05), np.log(50)),
        method="bounded",
    )
    temperature = float(spread / np.exp(found.x))
    return Probability(
        kind="temperature", parameters={"offset": offset, "temperature": temperature}, prior=PRIOR
    )


def fit_isotonic(data: LabelledScores) -> Probability:
    """Monotone log-odds by weighted isotonic regression, kept at POINTS quantiles of both sides.

    Probabilities are kept one pair's weight away from 0 and 1: nothing certain comes from a sample.
    """
    order = np.argsort(data.scores, kind="stable")
    scores, weights = data.scores[order], data.weights[order]
    fitted = isotonic_regression(data.genuine[order].astype(np.float64), weights=weights).x
    levels = np.linspace(0, 1, POINTS // 2 + 1)
    sides = [np.quantile(scores[data.genuine[order] == side], levels) for side in (False, True)]
    kept = np.unique(np.concatenate(sides))
    nearest = np.clip(np.searchsorted(scores, kept), 0, len(scores) - 1)
    certain = float(weights.max())
    p = np.clip(np.maximum.accumulate(fitted[nearest]), certain, 1 - certain)
    return Probability(
        kind="isotonic",
        parameters={"scores": kept.tolist(), "log_odds": (np.log(p) - np.log1p(-p)).tolist()},
        prior=PRIOR,
    )


def fit_probability(data: LabelledScores, seed: int = 0) -> Probability:
    """The fit with the lowest log loss on held-out classes, refitted on all of them.

    A fold's classes are held out with every pair that touches one; judged on the pairs within.
    """
    classes = np.unique(np.concatenate([data.first, data.second]))
    fold = np.random.default_rng([seed, 7]).permutation(len(classes)) % FOLDS
    of = np.zeros(int(classes.max()) + 1, dtype=np.int64)
    of[classes] = fold
    losses = np.zeros(3)
    for number in range(FOLDS):
        inside = (of[data.first] == number) & (of[data.second] == number)
        outside = (of[data.first] != number) & (of[data.second] != number)
        held, kept = data.part(inside), data.part(outside)
        if not all(part.genuine.any() and not part.genuine.all() for part in (held, kept)):
            continue
        losses += [reliability(held, fitted).log_loss for fitted in _fits(kept)]
    return _fits(data)[int(np.argmin(losses))]


def _fits(data: LabelledScores) -> list[Probability]:
    genuine, impostor = data.scores[data.genuine], data.scores[~data.genuine]
    platt = fit_platt(genuine.astype(np.float32), impostor.astype(np.float32))
    return [platt, fit_temperature(data), fit_isotonic(data)]


def reliability(data: LabelledScores, calibration: Probability, prior: float | None = None) -> Reliability:
    """Judge probabilities on labelled pairs, weighted to a prior (the calibration's own unless given)."""
    share = calibration.prior if prior is None else prior
    weights = np.where(data.genuine, share / PRIOR, (1 - share) / (1 - PRIOR)) * data.weights
    p = match_probability(data.scores, calibration, share)
    truth = data.genuine.astype(np.float64)
    distinct, tie = np.unique(p, return_inverse=True)
    mass = np.bincount(tie, weights, minlength=len(distinct))
    middle = np.cumsum(mass) - mass / 2  # equal probabilities stay in one bin
    place = np.minimum((middle * BINS).astype(np.int64), BINS - 1)[tie]
    amount = np.bincount(place, weights, minlength=BINS).astype(np.float64)
    amount_safe = np.maximum(amount, np.finfo(float).tiny)
    predicted = np.bincount(place, weights * p, minlength=BINS) / amount_safe
    observed = np.bincount(place, weights * truth, minlength=BINS) / amount_safe
    bounded = np.clip(p, 1e-15, 1 - 1e-15)
    return Reliability(
        predicted=predicted,
        observed=observed,
        share=amount,
        ece=float(amount @ np.abs(predicted - observed)),
        brier=float(weights @ (p - truth) ** 2),
        log_loss=float(-(weights @ (truth * np.log(bounded) + (1 - truth) * np.log1p(-bounded)))),
    )
