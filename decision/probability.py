"""From score to the probability of a match."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from api_schemas.operating_point import Probability


def match_probability(
    scores: ArrayLike, calibration: Probability, prior: float | None = None
) -> NDArray[np.float64]:
    """Probability that pairs with these scores match.

    Kind ``platt``: log-odds ``slope * score + intercept`` (Platt 1999), fitted at the calibration's
    own prior and moved to another one by adding the difference of the priors' log-odds.

    Args:
        scores: float of any shape.
        calibration: fitted parameters and the prior they were fitted at.
        prior: share of matches in deployment; the calibration's own unless given.

    Returns:
        float64 in [0, 1], the shape of ``scores``.
    """
    if calibration.kind != "platt":
        raise NotImplementedError(calibration.kind)
    slope, intercept = calibration.parameters["slope"], calibration.parameters["intercept"]
    log_odds = np.asarray(scores, dtype=np.float64) * slope + intercept
    if prior is not None:
        log_odds = log_odds + _logit(prior) - _logit(calibration.prior)
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)))


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
