"""Probabilities: calibrated on held-out classes, moved by the prior, monotone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm

from api_schemas.operating_point import Probability
from decision.match_probability import compute_match_probability
from evaluation.calibration.fit_probability import (
    POINTS,
    LabelledScores,
    fit_isotonic,
    fit_platt,
    fit_probability,
    fit_rank_mixup,
    fit_temperature,
    measure_reliability,
)
from evaluation.calibration.h_calibration import WINDOW, add_windows, fit_h_calibration


def make_labelled(seed: int, skew: bool = False, classes: int = 60, each: int = 60) -> LabelledScores:
    """Two normals (log-odds linear in the score), or a genuine side with a long lower tail."""
    rng = np.random.default_rng(seed)
    n, m = classes * each, 4 * classes * each
    genuine = rng.normal(0.7, 0.1, n)
    if skew:
        genuine = 0.9 - rng.exponential(0.25, n)
    scores = np.concatenate([genuine, rng.normal(0.2, 0.1, m)])
    own = np.repeat(np.arange(classes), each)
    first, second = rng.integers(0, classes, (2, m))
    second = np.where(first == second, (second + 1) % classes, second)
    same = np.repeat([True, False], [n, m])
    return LabelledScores(scores, same, np.concatenate([own, first]), np.concatenate([own, second]))


def test_linear_log_odds_are_found_and_hold_elsewhere() -> None:
    fitted = fit_probability(make_labelled(0))
    assert fitted.kind in ("platt", "temperature")
    reliability = measure_reliability(make_labelled(1), fitted)
    assert reliability.ece < 0.01
    grid = np.linspace(0.35, 0.55, 9)
    expected = norm.pdf(grid, 0.7, 0.1) / (norm.pdf(grid, 0.7, 0.1) + norm.pdf(grid, 0.2, 0.1))
    np.testing.assert_allclose(compute_match_probability(grid, fitted), expected, atol=0.06)


def test_bent_log_odds_are_left_to_the_isotonic_fit() -> None:
    data, fresh = make_labelled(0, skew=True), make_labelled(1, skew=True)
    fitted = fit_probability(data)
    assert fitted.kind == "isotonic"
    genuine, impostor = (data.scores[side].astype(np.float32) for side in (data.genuine, ~data.genuine))
    platt = measure_reliability(fresh, fit_platt(genuine, impostor))
    ours = measure_reliability(fresh, fitted)
    assert ours.log_loss < platt.log_loss
    assert ours.brier < platt.brier
    assert ours.ece < 0.02


@pytest.mark.parametrize("fit", [fit_isotonic, fit_temperature, fit_probability])
def test_higher_scores_are_never_less_likely(fit: object) -> None:
    fitted = fit(make_labelled(2, skew=True))  # type: ignore[operator]
    p = compute_match_probability(np.linspace(-1, 2, 500), fitted)
    assert np.all(np.diff(p) >= 0)
    assert np.all((p > 0) & (p < 1))


def test_the_prior_moves_the_odds_and_calibration_follows() -> None:
    fitted = fit_probability(make_labelled(3))
    scores = np.array([0.3, 0.45, 0.6])
    half, rare = (
        compute_match_probability(scores, fitted),
        compute_match_probability(scores, fitted, prior=0.01),
    )
    np.testing.assert_allclose(rare / (1 - rare), half / (1 - half) * (0.01 / 0.99), rtol=1e-9)
    assert measure_reliability(make_labelled(4), fitted, prior=0.1).ece < 0.02
    np.testing.assert_allclose(compute_match_probability(scores, fitted, prior=0.5), half)


def test_figures_of_a_known_case() -> None:
    data = LabelledScores(
        np.array([0.0, 0.0, 0.0, 0.0]), np.array([True, True, False, False]), np.arange(4), np.arange(4)
    )
    even = Probability(kind="platt", parameters={"slope": 1.0, "intercept": 0.0}, prior=0.5)
    reliability = measure_reliability(data, even)
    assert reliability.brier == pytest.approx(0.25)
    assert reliability.log_loss == pytest.approx(np.log(2))
    assert reliability.weight.sum() == pytest.approx(1)


def test_platt_agrees_with_scikit_learn_and_is_finite_when_separable() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    genuine = rng.normal(0.7, 0.15, 3000).astype(np.float32)
    impostor = rng.normal(0.2, 0.15, 5000).astype(np.float32)
    parameters = fit_platt(genuine, impostor).parameters
    model = LogisticRegression(C=1e9).fit(
        np.concatenate([genuine, impostor])[:, None],
        np.repeat([1, 0], [3000, 5000]),
        sample_weight=np.repeat([0.5 / 3000, 0.5 / 5000], [3000, 5000]) * 1e4,
    )
    assert parameters["slope"] == pytest.approx(model.coef_[0, 0], rel=0.02)
    assert parameters["intercept"] == pytest.approx(model.intercept_[0], rel=0.02)
    apart = fit_platt(np.full(50, 0.9, dtype=np.float32), np.full(50, 0.1, dtype=np.float32))
    assert np.isfinite(apart.parameters["slope"])


def _measure_windows(data: LabelledScores, fitted: Probability, window: int = 400) -> float:
    """The mean over windows of sorted scores, evenly over probabilities, of |mean probability - matches|."""
    order = np.argsort(data.scores)
    weights = data.weights[order]
    p = compute_match_probability(data.scores[order], fitted)
    off = weights * (p - data.genuine[order])
    ends = np.arange(window, len(off), window)
    sums, mass = np.add.reduceat(off, ends), np.add.reduceat(weights, ends)
    levels = np.minimum((np.add.reduceat(weights * p, ends) / mass * 15).astype(int), 14)
    gaps = np.abs(sums / mass)
    return float(np.mean([gaps[levels == level].mean() for level in np.unique(levels)]))


def test_h_calibration_holds_in_every_window_of_scores() -> None:
    data, fresh = make_labelled(0, skew=True), make_labelled(1, skew=True)
    genuine, impostor = (data.scores[side].astype(np.float32) for side in (data.genuine, ~data.genuine))
    platt = fit_platt(genuine, impostor)
    line = platt.parameters["slope"], platt.parameters["intercept"]
    assert not isinstance(line[0], list)
    assert not isinstance(line[1], list)
    fitted = fit_h_calibration(data.scores, data.genuine, data.weights, (line[0], line[1]), 0.5)
    assert _measure_windows(fresh, fitted) < 0.6 * _measure_windows(fresh, platt)
    p = compute_match_probability(np.linspace(-1, 2, 500), fitted)
    assert np.all(np.diff(p) >= 0)
    assert np.all((p > 0) & (p < 1))


def test_rank_mixup_is_the_least_of_the_loss_written_out() -> None:
    data = make_labelled(5, classes=12, each=5, skew=True)
    genuine, impostor = (data.scores[side].astype(np.float32) for side in (data.genuine, ~data.genuine))
    platt = fit_platt(genuine, impostor)
    line = float(np.asarray(platt.parameters["slope"])), float(np.asarray(platt.parameters["intercept"]))
    fitted = fit_rank_mixup(data, line)
    ratios = (1.0, 0.75, 0.5)
    levels = (np.arange(POINTS) + 0.5) / POINTS
    positives = np.quantile(data.scores[data.genuine], levels)
    negatives = np.quantile(data.scores[~data.genuine], 1 - 0.1 * levels)

    def measure(slope: float, intercept: float) -> float:
        p = 1 / (1 + np.exp(-(slope * data.scores + intercept)))
        total = -float(data.weights @ np.where(data.genuine, np.log(p), np.log1p(-p)))
        for g in positives:
            for upper, lower in pairwise(ratios):
                rise = slope * ((lower * g + (1 - lower) * negatives) - (upper * g + (1 - upper) * negatives))
                total += 0.1 * float(np.maximum(rise + (upper - lower), 0).mean()) / len(positives)
        return total

    slope, intercept = (float(np.asarray(fitted.parameters[name])) for name in ("slope", "intercept"))
    least = measure(slope, intercept)
    assert least < measure(*line)
    for factor in (0.9, 1.1):
        assert least < measure(slope * factor, intercept) + 1e-4
        assert least < measure(slope, intercept * factor) + 1e-4


def test_rank_mixup_is_less_confident_where_hard_impostors_score_as_high() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.5, 0.2, 4000), rng.normal(0.4, 0.2, 4000)])
    genuine, codes = np.arange(8000) < 4000, np.arange(8000)
    data = LabelledScores(scores, genuine, codes, codes)
    platt = fit_platt(scores[genuine].astype(np.float32), scores[~genuine].astype(np.float32))
    slope, intercept = (float(np.asarray(platt.parameters[name])) for name in ("slope", "intercept"))
    mixed = fit_rank_mixup(data, (slope, intercept))
    assert 0 < float(np.asarray(mixed.parameters["slope"])) < 0.9 * slope


@pytest.mark.parametrize("n", [1, 20, 21, 41, 42, 300])
def test_sums_over_windows_agree_with_a_loop(n: int) -> None:
    values, half = np.random.default_rng(n).normal(size=n), WINDOW // 2
    expected = [values[max(row - half, 0) : row + half + 1].sum() for row in range(n)]
    np.testing.assert_allclose(add_windows(values), expected, atol=1e-12)


def test_what_a_loss_learned_is_taken_where_it_holds() -> None:
    data = make_labelled(0, classes=12, each=6)
    # the log-odds of the two normals at prior 0.5, told for batches in which a tenth of the pairs match
    odds = {"slope": 0.5 / 0.01, "intercept": -0.45 * 0.5 / 0.01 + float(np.log(0.1 / 0.9))}
    true = Probability(kind="platt", parameters=odds, prior=0.1)
    assert fit_probability(data, learned=true) == true
    wrong = Probability(kind="platt", parameters={"slope": 1.0, "intercept": 5.0}, prior=0.1)
    assert fit_probability(data, learned=wrong) != wrong
