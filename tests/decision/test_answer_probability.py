"""The probability that an answer is right, against its formula one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from api_schemas.operating_point import AnswerProbability
from common.errors import InputError
from decision.answer_probability import FEATURES, OUTCOMES, AnswerModel, check_unknown_share


def make_calibration() -> AnswerProbability:
    rng = np.random.default_rng(0)
    weights = {f"{outcome}.{name}": float(rng.normal()) for outcome in OUTCOMES for name in FEATURES}
    weights |= {f"alone.{outcome}.score": float(rng.normal()) for outcome in ("first", "other")}
    return AnswerProbability(
        weights=weights, ranges={"score": (-0.5, 0.9), "gap": (0.0, 1.0)}, unknown_share=0.4
    )


def compute_slowly(score: float, second: float, n_classes: int, share: float) -> dict[str, float]:
    """By the definition, an outcome and a feature at a time."""
    calibration = make_calibration()
    clipped = min(max(score, -0.5), 0.9)
    gap, log_classes = min(max(score - second, 0.0), 1.0), math.log(n_classes)
    features = {
        "constant": 1.0, "score": clipped, "gap": gap, "log_classes": log_classes,
        "score_squared": clipped**2, "gap_squared": gap**2, "score_gap": clipped * gap,
        "score_log_classes": clipped * log_classes,
        "gap_log_classes": gap * log_classes,
    }  # fmt: skip
    odds = {"unknown": 1.0}
    for outcome in OUTCOMES:
        log_odds = sum(calibration.weights[f"{outcome}.{name}"] * value for name, value in features.items())
        odds[outcome] = math.exp(log_odds) * (1 - share) / share / ((1 - 0.4) / 0.4)
    return {outcome: value / sum(odds.values()) for outcome, value in odds.items()}


@pytest.mark.parametrize("second", [0.3, 0.79, -0.9, 0.95, math.nan, -math.inf])
@pytest.mark.parametrize("score", [0.8, -0.7, 0.95])
def test_a_query_alone_has_the_outcomes_that_it_has_among_others(score: float, second: float) -> None:
    model = AnswerModel.read(make_calibration())
    alone = model.compute([score], [second], 50, 0.2)
    among = model.compute([0.1, score], [0.0, second], 50, 0.2)
    np.testing.assert_allclose(np.array(alone)[:, 0], np.array(among)[:, 1], rtol=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.9])
def test_outcomes_are_a_softmax_of_features_at_any_share_of_unknown_queries(share: float) -> None:
    model = AnswerModel.read(make_calibration())
    cases = [(0.8, 0.3, 50), (0.95, 0.94, 500), (-0.7, -0.9, 3), (0.2, 0.2, 1)]
    computed = model.compute([case[0] for case in cases], [case[1] for case in cases], [50, 500, 3, 1], share)
    for row, (score, second, n_classes) in enumerate(cases):
        expected = compute_slowly(score, second, n_classes, share)
        for outcome, probability in expected.items():
            assert getattr(computed, outcome)[row] == pytest.approx(probability)
    accepted = np.array([True, False, True, False])
    right = computed.get_right(accepted)
    assert right.tolist() == np.where(accepted, computed.first, computed.unknown).tolist()


def test_without_a_second_class_the_gap_plays_no_part() -> None:
    calibration = make_calibration()
    computed = AnswerModel.read(calibration).compute([0.5, 0.5], [np.nan, -np.inf], 20, 0.4)
    odds = [math.exp(0.5 * calibration.weights[f"alone.{outcome}.score"]) for outcome in ("first", "other")]
    assert computed.first == pytest.approx([odds[0] / (1 + sum(odds))] * 2)
    assert computed.second.tolist() == [0.0, 0.0]


def test_more_unknown_queries_make_a_match_less_likely() -> None:
    model = AnswerModel.read(make_calibration())
    probabilities = [float(model.compute([0.6], [0.1], 40, share).first[0]) for share in (0.1, 0.5, 0.9)]
    assert probabilities == sorted(probabilities, reverse=True)


def test_what_cannot_be_used_is_named() -> None:
    for share in (0.0, 1.0, -3.0, float("nan")):
        with pytest.raises(InputError, match="unknown_share is the share of queries"):
            check_unknown_share(share)
    broken = make_calibration().model_copy(update={"weights": {"first.luck": 1.0}})
    with pytest.raises(InputError, match="'luck' is no feature of an answer"):
        AnswerModel.read(broken)


def test_no_answer_is_less_sure_because_its_winner_is_clearer() -> None:
    """Large gaps are those of small galleries in the fit, where they say less: their square turns round."""
    weights = {
        "first.constant": 0.7, "first.score": 0.8, "first.gap": 0.45, "first.log_classes": -0.6,
        "first.gap_squared": -0.025, "first.score_gap": 0.037, "first.gap_log_classes": -0.07,
        "second.constant": 0.9, "second.score": 0.7, "second.gap": -0.5, "other.constant": -5.0,
    }  # fmt: skip
    ranges = {"score": (-20.0, 8.0), "gap": (0.0, 30.0)}
    model = AnswerModel.read(AnswerProbability(weights=weights, ranges=ranges, unknown_share=0.5))
    gaps = np.linspace(0.5, 40, 200)
    for score in (3.0, 6.0, 9.0):
        found = model.compute(np.full(200, score), score - gaps, 75)
        assert (np.diff(found.first) >= -1e-3).all()
        assert found.first[-1] > found.first[10]
        np.testing.assert_allclose(sum(found), 1.0)
        for at in (3, 80, 199):
            alone = model.compute([score], [score - gaps[at]], 75)
            np.testing.assert_allclose(np.array(alone)[:, 0], np.array(found)[:, at], rtol=1e-12)
