"""Drift: how well a classifier separates two samples."""

from __future__ import annotations

import numpy as np

from service.telemetry.drift import EVERY, KEPT, MIN_QUERIES, DriftMonitor, compute_domain_auc


def draw_rows(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, 12)) + shift
    return np.float32(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_equal_distributions_are_not_separated_and_others_are_the_more_the_further() -> None:
    reference = draw_rows(0, 800)
    alike = [compute_domain_auc(reference, draw_rows(seed, 400)) for seed in range(1, 11)]
    assert 0.45 < np.mean(alike) < 0.55
    near, far = (
        compute_domain_auc(reference, draw_rows(20, 400, 0.2)),
        compute_domain_auc(reference, draw_rows(21, 400, 2.0)),
    )
    assert max(alike) < near < far
    assert far > 0.99


def test_only_the_last_queries_count_one_of_each_request() -> None:
    drift, reference = DriftMonitor(), draw_rows(0, 800)
    drift.add(draw_rows(1, 5000, 2.0))
    assert np.isnan(drift.compute_auc(reference)), "a batch is one query"
    for row in draw_rows(2, MIN_QUERIES, 2.0):
        drift.add(row[None])
    assert drift.compute_auc(reference) > 0.9
    assert np.isnan(drift.compute_auc(reference[:10])), "there is little to compare with"
    for row in draw_rows(3, (EVERY + 1) * KEPT):
        drift.add(row[None])
    assert drift.compute_auc(reference) < 0.6
    for _ in range(EVERY):
        drift.add(np.ones((1, 5), dtype=np.float32))
    assert np.isnan(drift.compute_auc(reference)), "another model's vectors"
