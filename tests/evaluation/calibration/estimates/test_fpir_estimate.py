"""Estimated FPIR: counted where it can be, along the tail beyond, for other galleries, with its interval."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import CalibrationRefused
from common.progress import silent
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.estimates.fpir_estimate import (
    FpirEstimate,
    find_correlation,
    measure_log_variance,
)
from evaluation.calibration.nearest_scores import score_nearest_trials
from evaluation.calibration.trials import Trials
from evaluation.pairs.pairs import arrange

EACH, DIMENSION = 6, 24


def draw(seed: int, classes: int) -> np.ndarray:
    """float [classes, EACH, DIMENSION]: a law with classes of unequal spread."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, 1, DIMENSION))
    spread = 0.9 * np.exp(0.3 * rng.standard_normal((classes, 1, 1)))
    rows = centres + spread * rng.standard_normal((classes, EACH, DIMENSION))
    return rows / np.linalg.norm(rows, axis=2, keepdims=True)


def score(seed: int, classes: int) -> Trials:
    rows = draw(seed, classes)
    items = EmbeddingSet.from_arrays(rows.reshape(-1, DIMENSION), np.repeat(np.arange(classes), EACH))
    return score_nearest_trials(arrange(items), silent)


def measure_truth(threshold: float, classes: int) -> float:
    """FPIR of 1,500 fresh queries against each of 20 fresh galleries."""
    queries = draw(990, 1500)[:, 0].astype(np.float32)
    matched = []
    for seed in range(20):
        gallery = draw(1000 + seed, classes).reshape(-1, DIMENSION).astype(np.float32)
        matched.append(np.mean((queries @ gallery.T).max(axis=1) >= threshold))
    return float(np.mean(matched))


@pytest.mark.parametrize(("classes", "wanted"), [(40, 40), (40, 10), (40, 120)])
@pytest.mark.parametrize("fpir", [0.1, 0.01])
def test_estimated_thresholds_realise_about_their_target(classes: int, wanted: int, fpir: float) -> None:
    """Of ten draws at most one is off by more than a factor of two and a half; the middle one is close."""
    reached = []
    for seed in range(10):
        trials = score(seed, classes)
        threshold = FpirEstimate(trials, trials, wanted).find_threshold(fpir)
        reached.append(measure_truth(threshold, wanted) / fpir)
    assert np.mean([0.4 <= value <= 2.5 for value in reached]) >= 0.9
    assert 0.6 < np.median(reached) < 1.6


def test_where_queries_are_many_the_estimate_is_what_is_counted() -> None:
    trials = score(0, 60)
    estimate = FpirEstimate(trials, trials, estimate_power(trials))
    for threshold in np.quantile(trials.best_other, [0.3, 0.6, 0.7]):
        assert estimate.compute(float(threshold)) == pytest.approx(trials.measure_fpir(float(threshold)))


def estimate_power(trials: Trials) -> float:
    """The gallery that a query was compared with, its own class left out."""
    return trials.n_trials / len(trials)


def test_estimates_fall_with_the_threshold_and_grow_with_the_gallery() -> None:
    trials = score(1, 30)
    thresholds = np.linspace(0.3, 0.95, 60)
    small, large = (
        [FpirEstimate(trials, trials, size).compute(float(threshold)) for threshold in thresholds]
        for size in (10, 100)
    )
    assert (np.diff(small) <= 1e-12).all()
    assert all(first <= second for first, second in zip(small, large, strict=True))


def test_the_threshold_is_the_lowest_that_meets_the_target() -> None:
    trials = score(2, 30)
    estimate = FpirEstimate(trials, trials, 30)
    for fpir in (0.3, 0.05, 0.002):
        threshold = estimate.find_threshold(fpir)
        assert estimate.compute(threshold) <= fpir
        assert estimate.compute(threshold - 0.01) > fpir


def test_an_interval_holds_its_estimate_at_any_confidence_and_widens_with_it() -> None:
    trials = score(3, 20)
    estimate = FpirEstimate(trials, trials, 20)
    for fpir in (0.2, 0.01):
        threshold = estimate.find_threshold(fpir)
        widths = []
        for confidence in (0.5, 0.8, 0.95, 0.99):
            interval = estimate.compute_interval(threshold, confidence)
            assert 0 < interval.lower <= interval.estimate <= interval.upper_bound <= interval.upper <= 1
            widths.append(interval.upper / interval.lower)
        assert widths == sorted(widths)


def test_intervals_cover_the_truth() -> None:
    truth = measure_truth(0.6, 30)
    covered = []
    for seed in range(30):
        trials = score(seed, 30)
        interval = FpirEstimate(trials, trials, 30).compute_interval(0.6, 0.95)
        covered.append(interval.lower <= truth <= interval.upper)
    assert np.mean(covered) >= 0.85


def test_the_variance_is_that_of_leaving_out_every_class_in_turn() -> None:
    trials = score(4, 15)
    level = float(np.quantile(trials.best_other, 0.8))
    logs = []
    for code in range(15):
        kept = np.arange(15) != code
        logs.append(np.log(np.mean(accepts(trials.select_classes(kept).best_other, level))))
    expected = 14 / 15 * np.square(np.array(logs) - np.mean(logs)).sum()
    assert measure_log_variance(trials, level, leaves_classes=True) == pytest.approx(expected)


def test_lookalikes_are_counted_where_the_tail_denies_them() -> None:
    """Ten classes with a copy under another label: at scores near 1 the estimate is not what a tail says."""
    rows = draw(5, 40)
    rows[20:30] = rows[:10]
    items = EmbeddingSet.from_arrays(rows.reshape(-1, DIMENSION), np.repeat(np.arange(40), EACH))
    trials = score_nearest_trials(arrange(items), silent)
    estimate = FpirEstimate(trials, trials, 40)
    assert trials.measure_fpir(0.999) == pytest.approx(0.5)
    assert 0.2 < estimate.compute(0.999) <= 0.55
    with pytest.raises(CalibrationRefused, match="Ties or duplicates across classes"):
        estimate.find_threshold(0.01)


def test_a_correlation_is_found_again() -> None:
    for correlation in (1e-4, 0.01, 0.3):
        ratio = np.log1p(50 * correlation) / (50 * correlation)
        assert find_correlation(float(ratio), 50) == pytest.approx(correlation, rel=1e-6)
    assert find_correlation(1.2, 50) == 0.0
