"""Weighted logistic regression of a few coefficients."""

from __future__ import annotations

import numpy as np

from common.array_types import Float64s


def logistic(design: Float64s, targets: Float64s, weights: Float64s) -> list[float]:
    """Coefficients of log-odds linear in the rows of a design, by damped Newton steps.

    Args:
        design: float64 [coefficients, m]; the last row is constant.
        targets: float64 [m] in (0, 1).
        weights: float64 [m].
    """
    centre = design.mean(axis=1, keepdims=True)
    spread = np.maximum(design.std(axis=1, keepdims=True), 1e-9)
    centre[-1], spread[-1] = 0.0, 1.0
    scaled = (design - centre) / spread

    def loss(coefficients: Float64s) -> float:
        log_odds = coefficients @ scaled
        return float(weights @ (np.logaddexp(0, log_odds) - targets * log_odds))

    coefficients = np.zeros(len(design))
    current = loss(coefficients)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (coefficients @ scaled)))
        gradient = scaled @ (weights * (p - targets))
        curvature = (scaled * (weights * p * (1 - p))) @ scaled.T + 1e-12 * np.eye(len(design))
        step = np.linalg.solve(curvature, gradient)
        while loss(coefficients - step) > current and float(np.abs(step).max()) > 1e-12:
            step /= 2
        coefficients = coefficients - step
        current = loss(coefficients)
        if float(np.abs(step).max()) < 1e-9:
            break
    found = coefficients / spread[:, 0]
    found[-1] -= float(found[:-1] @ centre[:-1, 0])
    return [float(value) for value in found]
