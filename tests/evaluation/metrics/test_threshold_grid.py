"""A threshold on similarities accepts exactly the distances within the one it stands for."""

from __future__ import annotations

import numpy as np

from evaluation.metrics.threshold_grid import convert_to_distance, find_similarity_within


def test_thresholds_accept_exactly_the_distances_within() -> None:
    draw = np.random.default_rng(0)
    similarities = np.sort(np.concatenate([draw.uniform(-1, 1, 500), [1, 1, 0, -1]]).astype(np.float32))
    distances = np.concatenate([convert_to_distance(similarities[::7]), draw.uniform(0, 2, 50)])
    thresholds = find_similarity_within(distances)
    for threshold, distance in zip(thresholds, distances, strict=True):
        np.testing.assert_array_equal(
            similarities >= threshold, convert_to_distance(similarities) <= distance
        )
