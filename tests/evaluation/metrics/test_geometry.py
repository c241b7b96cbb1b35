"""Spread, collapse and utilization against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics.geometry import (
    compute_neural_collapse,
    compute_utilization,
    measure_class_means,
    measure_class_spread,
)
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


def test_class_means_of_an_even_frame_and_of_two_close_classes() -> None:
    corners = np.eye(4) - 0.25  # of a regular simplex
    vectors = np.repeat(corners, 3, axis=0)
    labels = np.repeat(np.array(["a", "b", "c", "d"]), 3)
    found = measure_class_means(EmbeddingSet.from_arrays(vectors, labels))
    assert found is not None
    even = float(np.degrees(np.arccos(-1 / 3)))
    angles = (found.angle, found.nearest_angle, found.nearest_angle_p05, found.even_angle)
    assert angles == pytest.approx((even,) * 4, abs=1e-4)
    assert found.length == pytest.approx(1)
    assert found.length_variation == pytest.approx(0, abs=1e-6)

    random = np.random.default_rng(0)
    vectors[3:6] = corners[0] + 0.2 * random.normal(size=(3, 4))  # b moves to a, and is not tight
    items = EmbeddingSet.from_arrays(vectors, labels)
    found = measure_class_means(items)
    assert found is not None
    means = np.array([items.vectors[labels == name].mean(0) for name in "abcd"])
    seen = means - means.mean(0)
    angle = {
        (i, j): np.degrees(np.arccos(seen[i] @ seen[j] / np.linalg.norm(seen[i]) / np.linalg.norm(seen[j])))
        for i in range(4)
        for j in range(4)
        if i != j
    }
    assert found.angle == pytest.approx(np.mean(list(angle.values())), abs=1e-4)
    nearest = [min(value for (a, _), value in angle.items() if a == i) for i in range(4)]
    assert found.nearest_angle == pytest.approx(np.mean(nearest), abs=1e-4)
    assert found.length == pytest.approx(np.linalg.norm(means, axis=1).mean())
    assert found.nearest_angle_p05 < 0.5 * even

    same = EmbeddingSet.from_arrays(np.ones((4, 3)), np.array(["a", "a", "b", "b"]))
    assert measure_class_means(same) is None
