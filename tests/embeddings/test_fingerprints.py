"""Fingerprints know a vector again up to rounding, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from embeddings.fingerprints import LENGTH, are_same, compute_fingerprints


@pytest.mark.parametrize("dimension", [16, 128, 1024])
def test_rounded_copies_are_the_same_and_near_vectors_are_not(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    rows = rng.normal(size=(500, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    own = compute_fingerprints(rows)
    steps = rng.normal(size=rows.shape)
    steps *= 0.02 / np.linalg.norm(steps, axis=1, keepdims=True)
    copies = [rows.astype(np.float16).astype(np.float32), np.round(rows, 5), 7 * rows]
    for copy in copies:
        assert all(map(are_same, own, compute_fingerprints(copy)))
    near = compute_fingerprints((rows + steps).astype(np.float32))
    assert sum(map(are_same, own, near)) <= 1
    assert not any(are_same(own[0], other) for other in own[1:])


def test_fingerprints_are_the_same_for_ever() -> None:
    row = np.array([[0.6, 0.8, 0.0]], dtype=np.float32)
    (fingerprint,) = compute_fingerprints(row)
    assert len(fingerprint) == LENGTH
    assert fingerprint == [-14000, 14000, -14000, -2000, -2000, -2000, -14000, 2000]
    assert fingerprint == compute_fingerprints(np.repeat(row, 5, axis=0))[3]
