"""Every kind of calibration has its log-odds."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from api_schemas.operating_point import Probability
from decision.match_probability import LOG_ODDS, compute_match_probability

PLATT = Probability(kind="platt", parameters={"slope": 4.0, "intercept": -1.0}, prior=0.5)


def test_every_kind_of_calibration_is_registered() -> None:
    assert set(LOG_ODDS) == set(get_args(Probability.model_fields["kind"].annotation))


def test_another_prior_moves_the_log_odds_by_the_difference_of_the_priors() -> None:
    for prior in (0.01, 0.5, 0.9):
        odds = 4.0 * 0.3 - 1.0 + np.log(prior / (1 - prior))
        assert compute_match_probability([0.3], PLATT, prior)[0] == pytest.approx(1 / (1 + np.exp(-odds)))
    assert compute_match_probability([0.3], PLATT)[0] == compute_match_probability([0.3], PLATT, 0.5)[0]
