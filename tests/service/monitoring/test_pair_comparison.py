"""Scores of pairs against the calibration: seen when genuine pairs become harder, and quiet otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from service.models.loaded_model import LoadedModel, load_model
from service.monitoring.gallery_reference import build_pair_reference
from service.monitoring.query_comparison import PairComparison
from service.monitoring.recorder import WINDOW, Recorder
from service.settings import load_settings
from tests.service.bundles import ServiceBundle, make_clusters
from tests.service.monitoring.conftest import WatchedModel, normalise

FRESH = make_clusters(2, 40, 60, "class-")  # of the centres of the gallery's classes


@pytest.fixture
def model(bundle: ServiceBundle) -> Iterator[LoadedModel]:
    loaded = load_model(bundle.path, load_settings(bundle=bundle.path))
    yield loaded
    loaded.gallery.close()


def draw_pairs(seed: int, n: int, genuine: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of items that the gallery does not hold; the second of each with noise."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(FRESH), n)
    own = first // 60 * 60 + rng.integers(0, 60, n)
    second = np.where(rng.random(n) < genuine, own, rng.integers(0, len(FRESH), n))
    b = FRESH.vectors[second]
    return FRESH.vectors[first], normalise(b + noise / 4 * rng.normal(size=b.shape))


def verify(model: LoadedModel, recorder: Recorder, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    point = model.active_verify
    assert point is not None
    for start in range(0, len(pairs[0]), 50):
        part = slice(start, start + 50)
        recorder.observe_verify(point, model.gallery.verify(pairs[0][part], pairs[1][part]))


def test_the_reference_is_of_the_scores_that_fresh_pairs_have(model: LoadedModel) -> None:
    assert model.active_verify is not None
    reference = build_pair_reference(model, model.active_verify)
    edges = np.linspace(-0.28, 1, 65)[:-1]
    for share, counts in ((1.0, reference.known), (0.0, reference.unknown)):
        scores = [decision.score for decision in model.gallery.verify(*draw_pairs(0, 2_000, share))]
        assert counts.sum() == pytest.approx(1)
        assert counts @ edges == pytest.approx(np.mean(scores), abs=0.04)


@pytest.mark.parametrize("genuine", [0.1, 0.5, 0.95])
def test_another_share_of_impostors_is_no_drift(model: LoadedModel, genuine: float) -> None:
    recorder = Recorder()
    comparison = PairComparison(recorder)
    for seed in range(10):
        verify(model, recorder, draw_pairs(seed, 100, genuine))
        reading = comparison.look(model, model.active_verify)
        assert not (reading.lower or 0) > 0.05, reading.detail
    if genuine > 0.1:
        assert reading.value is not None


def test_harder_genuine_pairs_raise_an_alert(bundle: ServiceBundle, model: LoadedModel) -> None:
    watched = WatchedModel(model, bundle.path)
    for seed, noise in enumerate([0.0] * 5 + [0.5] * 5):
        verify(model, watched.monitor.recorder, draw_pairs(seed, 100, 0.7, noise))
        watched.now += 5
        watched.monitor.take_turn(watched.now)
        if seed == 4:
            assert watched.firing == set()
    assert watched.firing == {"pair-score-drift"}
    day = watched.monitor.summarize_day(watched.now)
    assert day is not None
    assert day.scores_as_calibrated is False


def test_what_is_no_comparison_is_not_counted(model: LoadedModel) -> None:
    recorder = Recorder()
    comparison = PairComparison(recorder)
    assert "no operating point" in comparison.look(model, None).detail
    items, _ = draw_pairs(0, 300, 1.0)
    verify(model, recorder, (items, items))
    assert "0 of 200 pairs" in comparison.look(model, model.active_verify).detail
    point = model.active_verify
    assert point is not None
    recorder.observe_verify(point, model.gallery.verify(*draw_pairs(1, 1_000, 0.5)))
    assert len(recorder.read_pairs(point.id)) <= 64, "a large batch does not stand for all clients"
    verify(model, recorder, draw_pairs(2, 1_000, 0.5))
    assert len(recorder.read_pairs(point.id)) == WINDOW
    assert len(recorder.read_pairs("another")) == 0
