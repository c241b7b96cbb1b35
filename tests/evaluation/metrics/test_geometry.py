"""Spread, collapse and utilization against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics.geometry import compute_neural_collapse, compute_utilization, measure_class_spread
from tests.evaluation.samples import make_cameras


def test_spread_of_classes() -> None:
    items = make_cameras()
    rows = measure_class_spread(items)
    means = np.array([items.vectors[items.labels == c].astype(float).mean(axis=0) for c in items.classes])
    for k, row in enumerate(rows):
        own = items.vectors[items.labels == row.label].astype(float)
        intra = np.mean(np.sum((own - means[k]) ** 2, axis=1))
        distances = np.sum((means - means[k]) ** 2, axis=1)
        distances[k] = np.inf
        assert row.inter == pytest.approx(np.sum((means[k] - means.mean(axis=0)) ** 2))
        assert row.nearest == items.classes[int(np.argmin(distances))]
        if len(own) == 1:
            assert row.intra is None
            assert row.collapse is None
        else:
            assert row.intra == pytest.approx(intra)
            assert row.collapse == pytest.approx(intra / row.inter)


def test_collapsed_classes_have_no_ratio() -> None:
    collapsed = EmbeddingSet.from_arrays(np.repeat(np.eye(3), 4, axis=0), np.repeat([1, 2, 3], 4))
    assert compute_neural_collapse(collapsed) == pytest.approx(0, abs=1e-12)
    assert compute_neural_collapse(EmbeddingSet.from_arrays(np.ones((4, 2)), [1, 1, 2, 2])) is None


def test_utilization_of_the_worked_example() -> None:
    def at(*degrees: float) -> EmbeddingSet:
        angles = np.deg2rad(degrees)
        return EmbeddingSet.from_arrays(np.stack([np.cos(angles), np.sin(angles)], 1), [1] * len(degrees))

    assert compute_utilization(at(45, 100), at(0, 30, 80)) == pytest.approx(0.094382, abs=1e-6)
