"""From score to the probability of a match."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Probability
from common.array_types import Float64s

Parameters = Mapping[str, Any]


def compute_match_probability(
    scores: ArrayLike, calibration: Probability, prior: float | None = None
) -> Float64s:
    """Probability, float64 in [0, 1], that pairs with these scores, of any shape, match.

    Log-odds at the calibration's own prior, moved to another one by adding the difference of the
    priors' log-odds:

    - ``platt``: ``slope * score + intercept`` (Platt 1999);
    - ``temperature``: ``(score - offset) / temperature``, the offset where errors of both kinds are
      equally frequent (Guo et al. 2017, section 4.2);
    - ``isotonic``: linear between fitted points, constant beyond them (Zadrozny & Elkan 2002);
    - ``h_calibration``: the same, fitted to the mean of every window of scores (Huang et al. 2025);
    - ``rank_mixup``: as ``platt``, fitted so that mixtures of pairs match less (Noh et al. 2023).

    Args:
        prior: fraction of matches in deployment, in (0, 1); the calibration's own unless given.
    """
    odds = LOG_ODDS[calibration.kind](np.asarray(scores, dtype=np.float64), calibration.parameters)
    if prior is not None:
        odds = odds + _compute_logit(prior) - _compute_logit(calibration.prior)
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * odds)))


def _compute_logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _compute_platt_odds(scores: Float64s, parameters: Parameters) -> Float64s:
    return np.asarray(scores * parameters["slope"] + parameters["intercept"])


def _compute_temperature_odds(scores: Float64s, parameters: Parameters) -> Float64s:
    return np.asarray((scores - parameters["offset"]) / parameters["temperature"])


def _compute_isotonic_odds(scores: Float64s, parameters: Parameters) -> Float64s:
    points, odds = np.atleast_1d(parameters["scores"]), np.atleast_1d(parameters["log_odds"])
    return np.asarray(np.interp(scores, points, odds))


LOG_ODDS: dict[str, Callable[[Float64s, Parameters], Float64s]] = {
    "platt": _compute_platt_odds,
    "temperature": _compute_temperature_odds,
    "isotonic": _compute_isotonic_odds,
    "h_calibration": _compute_isotonic_odds,
    "rank_mixup": _compute_platt_odds,
}
"""From scores to log-odds of a match at the calibration's own prior."""
