"""``/v1/verify`` against brute force; the threshold itself is accepted."""

from __future__ import annotations

from typing import Any

import numpy as np

from embeddings.similarity import compute_pair_similarities
from limen.client import Client


def test_a_score_exactly_at_the_threshold_matches(client: Client, bundle: Any) -> None:
    threshold = np.float32(bundle.points["verify"].threshold)
    results = client.verify(
        [({"id": "item-0"}, {"id": f"item-{row}"}) for row in range(1, 200)]
        + [({"id": "item-0"}, {"vector": bundle.get_vector(0)})]
    ).results
    for row, result in enumerate(results[:-1], 1):
        expected = compute_pair_similarities(
            bundle.gallery.vectors[:1], bundle.gallery.vectors[row : row + 1]
        )[0]
        assert np.float32(result.score) == expected
        assert result.decision == ("match" if expected >= threshold else "no_match")
    assert results[-1].decision == "match"
    assert {result.decision for result in results} == {"match", "no_match"}


def test_probability_rises_with_the_score(client: Client) -> None:
    results = client.verify([({"id": "item-0"}, {"id": f"item-{row}"}) for row in range(1, 100)]).results
    ordered = sorted(results, key=lambda result: result.score)
    probabilities = [result.probability for result in ordered]
    assert all(value is not None and 0 <= value <= 1 for value in probabilities)
    assert probabilities == sorted(probabilities)  # type: ignore[type-var]
