"""Planted drift raises an alert within 500 queries; what is no drift raises none."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest

from service.monitoring import query_comparison
from service.monitoring.gallery_reference import build_score_reference
from tests.service.monitoring.conftest import Sentences, WatchedModel, normalise

QUERIES = 500
RUNS = 20
Kind = Literal["offset", "noise", "rotation"]


def draw_queries(sentences: Sentences, seed: int, unknown: float = 0.2, classes: int = 100) -> np.ndarray:
    """Real queries: some of no intent at all, the others of some of the intents."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(np.unique(sentences.labels), classes, replace=False)
    known = rng.permutation(np.flatnonzero(np.isin(sentences.labels, chosen)))
    n_unknown = int(unknown * QUERIES)
    rows = [sentences.known[known[: QUERIES - n_unknown]], rng.permutation(sentences.unknown)[:n_unknown]]
    return rng.permutation(np.concatenate(rows))


def plant_drift(queries: np.ndarray, kind: Kind, seed: int) -> np.ndarray:
    """Another sensor: an offset that all queries share, noise, or a turn in a few planes."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return normalise(queries + 0.4 / np.sqrt(queries.shape[1]) * rng.normal(size=queries.shape))
    if kind == "offset":
        direction = rng.normal(size=queries.shape[1])
        return normalise(queries + 0.2 * direction / np.linalg.norm(direction))
    turned, angle = queries.copy(), 0.5
    for a, b in rng.permutation(queries.shape[1])[:32].reshape(-1, 2):
        turned[:, a] = np.cos(angle) * queries[:, a] - np.sin(angle) * queries[:, b]
        turned[:, b] = np.sin(angle) * queries[:, a] + np.cos(angle) * queries[:, b]
    return turned


@pytest.mark.parametrize("kind", ["offset", "noise", "rotation"])
def test_planted_drift_raises_an_alert_within_500_queries(
    sentences: Sentences, watched: WatchedModel, kind: Kind
) -> None:
    watched.ask(plant_drift(draw_queries(sentences, 1), kind, 2))
    assert watched.firing & {"query-drift", "score-drift"}


@pytest.mark.parametrize("kind", ["offset", "noise", "rotation"])
def test_drift_that_begins_later_is_seen_as_soon(
    sentences: Sentences, watched: WatchedModel, kind: Kind
) -> None:
    watched.ask(draw_queries(sentences, 3))
    assert watched.firing == set()
    watched.ask(plant_drift(draw_queries(sentences, 4), kind, 5))
    assert watched.firing & {"query-drift", "score-drift"}


def test_runs_without_drift_raise_none(sentences: Sentences, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the share of unknown queries and the mix of classes: neither is drift."""
    point = sentences.model.active_match
    assert point is not None
    reference = build_score_reference(sentences.model, point)
    monkeypatch.setattr(query_comparison, "build_score_reference", lambda *_: reference)
    measured: Counter[str] = Counter()
    for seed in range(RUNS):
        watched = WatchedModel(sentences.model, sentences.bundle)
        unknown, classes = (0.05, 0.2, 0.4)[seed % 3], (100, 30)[seed % 2]
        watched.ask(draw_queries(sentences, 100 + seed, unknown, classes))
        assert watched.firing == set(), f"run {seed}"
        measured.update(reading.signal for reading in watched.monitor.readings if reading.value is not None)
    assert measured["score_stability"] == RUNS
    assert measured["query_drift"] > RUNS / 2, "a few classes may have too few items"
