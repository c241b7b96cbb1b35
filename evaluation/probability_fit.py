"""From score to the probability of a match: fits on labelled pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from api_schemas.operating_point import Probability

Floats = NDArray[np.float64]
PRIOR = 0.5


def fit_platt(genuine: NDArray[np.float32], impostor: NDArray[np.float32]) -> Probability:
    """Log-odds linear in the score (Platt 1999), at prior 0.5: each side weighs one half.

    Targets are Platt's ``(n+1)/(n+2)`` and ``1/(n+2)``, so that separable scores give a finite slope.

    Args:
        genuine, impostor: float32 scores of pairs, neither empty.
    """
    scores = np.concatenate([genuine, impostor]).astype(np.float64)
    n, m = len(genuine), len(impostor)
    targets = np.concatenate([np.full(n, (n + 1) / (n + 2)), np.full(m, 1 / (m + 2))])
    weights = np.concatenate([np.full(n, PRIOR / n), np.full(m, (1 - PRIOR) / m)])
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-6)
    design = np.stack([(scores - centre) / spread, np.ones_like(scores)])
    slope, intercept = _logistic(design, targets, weights)
    return Probability(
        kind="platt",
        parameters={"slope": slope / spread, "intercept": intercept - slope * centre / spread},
        prior=PRIOR,
    )


def _logistic(design: Floats, targets: Floats, weights: Floats) -> tuple[float, float]:
    """Weighted logistic regression of two coefficients by damped Newton steps."""

    def loss(coefficients: Floats) -> float:
        log_odds = coefficients @ design
        return float(weights @ (np.logaddexp(0, log_odds) - targets * log_odds))

    coefficients = np.zeros(2)
    current = loss(coefficients)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (coefficients @ design)))
        gradient = design @ (weights * (p - targets))
        curvature = (design * (weights * p * (1 - p))) @ design.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(coefficients - step) > current and float(np.abs(step).max()) > 1e-12:
            step /= 2
        coefficients = coefficients - step
        current = loss(coefficients)
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(coefficients[0]), float(coefficients[1])
