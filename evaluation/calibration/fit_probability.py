"""From score to the probability of a match: five fits, and the one that held-out classes prefer.

docs/specification.md, Calibration, Probability of a match.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api_schemas.operating_point import Probability
from common.array_types import Bools, Float32s, Float64s, Int64s
from decision.match_probability import compute_match_probability
from evaluation.calibration.h_calibration import fill_cells, fit_h_calibration

PRIOR = 0.5
FOLDS = 5
POINTS = 101  # of an isotonic fit that are kept
BINS = 15
RANK_WEIGHT, RANK_MARGIN = 0.1, 1.0  # the authors' weight and the smaller of their margins
LEAST_MIXED = 0.5  # of the genuine pair in a mixture
HARDEST = 0.1  # of the impostor scores, from the highest


@dataclass(frozen=True)
class LabelledScores:
    """Scores of pairs, float64 [m], with their ground truth, bool [m], and the classes of both ends.

    ``first`` and ``second`` are codes of classes, int64 [m], equal for genuine pairs.
    """

    scores: Float64s
    genuine: Bools
    first: Int64s
    second: Int64s

    def select(self, rows: Bools) -> LabelledScores:
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
    """Reliability of probabilities at a prior: bins of equal weight, and three summary figures.

    Attributes:
        predicted, observed, weight: float64 [bins]: mean probability, fraction of matches, weight.
        ece: weighted mean of ``|predicted - observed|``.
        brier: mean squared error.
        log_loss: mean negative log-likelihood, in nats.
    """

    predicted: Float64s
    observed: Float64s
    weight: Float64s
    ece: float
    brier: float
    log_loss: float


def fit_log_odds(features: Float64s, n_genuine: int, prior: float = PRIOR) -> list[float]:
    """Log-odds of a match at prior 0.5, linear in features: their coefficients, and the intercept last.

    Genuine pairs weigh ``prior`` together: where the log-odds are not linear in truth, they fit best where a
    match is as likely as not at that prior. Targets are Platt's ``(n+1)/(n+2)`` and ``1/(n+2)``, so that
    separable scores give a finite slope. ``features`` float64 [coefficients, n + m]: n genuine pairs, then m
    impostor pairs.
    """
    n, m = n_genuine, features.shape[1] - n_genuine
    targets = np.concatenate([np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))])
    weights = np.concatenate([np.full(n, prior / n), np.full(m, (1 - prior) / m)])
    *slopes, intercept = _fit_logistic_regression(np.stack([*features, np.ones(n + m)]), targets, weights)
    return [*slopes, intercept + float(np.log1p(-prior) - np.log(prior))]


def fit_platt(genuine: Float32s, impostor: Float32s) -> Probability:
    """Log-odds linear in the score (Platt 1999), at prior 0.5: each side, float32, weighs one half."""
    scores = np.concatenate([genuine, impostor]).astype(np.float64)
    slope, intercept = fit_log_odds(scores[None], len(genuine))
    return Probability(kind="platt", parameters={"slope": slope, "intercept": intercept}, prior=PRIOR)


def fit_temperature(data: LabelledScores) -> Probability:
    """One parameter: log-odds ``(score - offset) / temperature``.

    The offset is the score at which as many genuine pairs lie below as impostor pairs above, where
    even odds belong at prior 0.5.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    genuine, impostor = np.sort(data.scores[data.genuine]), np.sort(data.scores[~data.genuine])
    grid = np.quantile(data.scores, np.linspace(0, 1, 2001))
    below = np.searchsorted(genuine, grid) / len(genuine)
    above = 1 - np.searchsorted(impostor, grid) / len(impostor)
    offset = float(grid[np.argmin(np.abs(below - above))])
    centred = data.scores - offset
    spread = max(float(centred.std()), 1e-9)
    signed, weights = np.where(data.genuine, -centred, centred) / spread, data.weights
    least = minimize_scalar(
        lambda step: float(weights @ np.logaddexp(0, np.exp(step) * signed)),
        bounds=(np.log(0.05), np.log(50)),
        method="bounded",
    )
    temperature = float(spread / np.exp(least.x))
    return Probability(
        kind="temperature", parameters={"offset": offset, "temperature": temperature}, prior=PRIOR
    )


def fit_rank_mixup(data: LabelledScores, start: tuple[float, float]) -> Probability:
    """Log-odds linear in the score for which mixtures of a genuine and a hard impostor pair match less.

    ``log loss + 0.1 mean sum_k [f(v_{k+1}) - f(v_k) + margin (r_k - r_{k+1})]_+`` over the log-odds f of
    mixtures ``v_k = r_k g + (1 - r_k) i`` of scores g and i (Noh et al., RankMixup, ICCV 2023, arXiv
    2308.11990; M-NDCG). As f is linear the sum over all ratios down to r is ``(1 - r) [margin - slope (g -
    i)]_+``: where hard impostor pairs score as high as genuine ones, the slope falls, and so does confidence.

    Args:
        start: slope and intercept to begin with.

    Reference implementation: a loss of training on mixed inputs; here of the fit, on mixed scores.
    """
    from scipy.optimize import minimize  # slow to import

    centres, matches, mass = fill_cells(data.scores, data.genuine, data.weights)
    levels = (np.arange(POINTS) + 0.5) / POINTS
    genuine = np.quantile(data.scores[data.genuine], levels)
    hard = np.quantile(data.scores[~data.genuine], 1 - HARDEST * levels)
    gaps = (genuine[:, None] - hard).ravel()
    middle, spread = float(centres.mean()), max(float(centres.std()), 1e-9)
    scaled, gaps = (centres - middle) / spread, gaps / spread

    def compute_loss(line: Float64s) -> tuple[float, Float64s]:
        odds = line[0] * scaled + line[1]
        off = mass * (0.5 * (1 + np.tanh(0.5 * odds)) - matches)
        short = np.maximum(RANK_MARGIN - line[0] * gaps, 0.0)
        rank = RANK_WEIGHT * (1 - LEAST_MIXED)
        loss = float(mass @ (np.logaddexp(0, odds) - matches * odds)) + rank * float(short.mean())
        slope = float(off @ scaled) - rank * float((gaps * (short > 0)).mean())
        return loss, np.array([slope, off.sum()])

    first = np.array([start[0] * spread, start[1] + start[0] * middle])
    line = minimize(compute_loss, first, jac=True, method="L-BFGS-B", bounds=[(1e-6, None), (None, None)]).x
    slope = float(line[0]) / spread
    return Probability(
        kind="rank_mixup",
        parameters={"slope": slope, "intercept": float(line[1]) - slope * middle},
        prior=PRIOR,
    )


def fit_isotonic(data: LabelledScores) -> Probability:
    """Monotone log-odds by weighted isotonic regression, kept at POINTS quantiles of both sides.

    Probabilities are kept one pair's weight away from 0 and 1: nothing certain comes from a sample.
    """
    from scipy.optimize import isotonic_regression  # slow to import

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


def fit_probability(data: LabelledScores, seed: int = 0, learned: Probability | None = None) -> Probability:
    """The fit with the lowest log loss on held-out classes, refitted on all of them.

    A fold's classes are held out with every pair that touches one; judged on the pairs within. ``learned`` is
    what training gave: it is judged as it is, moved to the same prior.
    """
    classes = np.unique(np.concatenate([data.first, data.second]))
    folds = np.zeros(int(classes.max()) + 1, dtype=np.int64)
    folds[classes] = np.random.default_rng([seed, 7]).permutation(len(classes)) % FOLDS
    first, second = folds[data.first], folds[data.second]
    losses: list[list[float]] = []
    for fold in range(FOLDS):
        held_out = data.select((first == fold) & (second == fold))
        kept = data.select((first != fold) & (second != fold))
        if not all(part.genuine.any() and not part.genuine.all() for part in (held_out, kept)):
            continue
        losses.append(
            [measure_reliability(held_out, fitted, PRIOR).log_loss for fitted in _fit_all(kept, learned)]
        )
    best = int(np.argmin(np.sum(losses, axis=0))) if losses else 0
    return _fit_all(data, learned)[best]


def _fit_all(data: LabelledScores, learned: Probability | None = None) -> list[Probability]:
    genuine, impostor = data.scores[data.genuine], data.scores[~data.genuine]
    platt = fit_platt(genuine.astype(np.float32), impostor.astype(np.float32))
    slope, intercept = (float(np.asarray(platt.parameters[name])) for name in ("slope", "intercept"))
    h_calibrated = fit_h_calibration(data.scores, data.genuine, data.weights, (slope, intercept), PRIOR)
    ranked = fit_rank_mixup(data, (slope, intercept))
    fits = [platt, fit_temperature(data), fit_isotonic(data), h_calibrated, ranked]
    return fits if learned is None else [*fits, learned]


def measure_reliability(
    data: LabelledScores, calibration: Probability, prior: float | None = None
) -> Reliability:
    """Judge probabilities on labelled pairs, weighted to a prior (the calibration's own unless given)."""
    prior = calibration.prior if prior is None else prior
    weights = np.where(data.genuine, prior / PRIOR, (1 - prior) / (1 - PRIOR)) * data.weights
    return compute_reliability(
        compute_match_probability(data.scores, calibration, prior), data.genuine, weights
    )


def compute_reliability(p: Float64s, right: Bools, weights: Float64s) -> Reliability:
    """Reliability of probabilities, float64 [m], of what turned out right or not; weights with the sum 1."""
    labels = right.astype(np.float64)
    distinct, tie = np.unique(p, return_inverse=True)
    mass = np.bincount(tie, weights, minlength=len(distinct))
    middle = np.cumsum(mass) - mass / 2  # equal probabilities stay in one bin
    bins = np.minimum((middle * BINS).astype(np.int64), BINS - 1)[tie]
    weight = np.bincount(bins, weights, minlength=BINS).astype(np.float64)
    divisor = np.maximum(weight, np.finfo(float).tiny)
    predicted = np.bincount(bins, weights * p, minlength=BINS) / divisor
    observed = np.bincount(bins, weights * labels, minlength=BINS) / divisor
    bounded = np.clip(p, 1e-15, 1 - 1e-15)
    return Reliability(
        predicted=predicted,
        observed=observed,
        weight=weight,
        ece=float(weight @ np.abs(predicted - observed)),
        brier=float(weights @ (p - labels) ** 2),
        log_loss=float(-(weights @ (labels * np.log(bounded) + (1 - labels) * np.log1p(-bounded)))),
    )


def _fit_logistic_regression(design: Float64s, targets: Float64s, weights: Float64s) -> list[float]:
    """Coefficients of log-odds linear in the rows of a design, by damped Newton steps.

    ``design`` float64 [coefficients, m] with a constant last row; ``targets`` in (0, 1) and ``weights`` [m].
    """
    centre = design.mean(axis=1, keepdims=True)
    spread = np.maximum(design.std(axis=1, keepdims=True), 1e-9)
    centre[-1], spread[-1] = 0.0, 1.0
    scaled = (design - centre) / spread

    def compute_loss(log_odds: Float64s) -> float:
        return float(weights @ (np.logaddexp(0, log_odds) - targets * log_odds))

    coefficients = np.zeros(len(design))
    log_odds = coefficients @ scaled
    current = compute_loss(log_odds)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * log_odds))
        gradient = scaled @ (weights * (p - targets))
        curvature = (scaled * (weights * p * (1 - p))) @ scaled.T + 1e-12 * np.eye(len(design))
        step = np.linalg.solve(curvature, gradient)
        while True:
            log_odds = (coefficients - step) @ scaled
            loss = compute_loss(log_odds)
            if not (loss > current and float(np.abs(step).max()) > 1e-12):
                break
            step /= 2
        coefficients, current = coefficients - step, loss
        if float(np.abs(step).max()) < 1e-9:
            break
    unscaled = coefficients / spread[:, 0]
    unscaled[-1] -= float(unscaled[:-1] @ centre[:-1, 0])
    return [float(value) for value in unscaled]
