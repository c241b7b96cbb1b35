"""From score to the probability of a match: fits on labelled pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from api_schemas.operating_point import Probability
from evaluation.logistic import logistic

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
    slope, intercept = logistic(np.stack([scores, np.ones_like(scores)]), targets, weights)
    return Probability(kind="platt", parameters={"slope": slope, "intercept": intercept}, prior=PRIOR)
