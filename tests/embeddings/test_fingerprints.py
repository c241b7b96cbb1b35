"""Fingerprints know a vector again up to rounding, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from common.array_types import Float32s
from embeddings.fingerprints import LENGTH, are_same, compute_fingerprints, read_fingerprint


def fingerprint(rows: Float32s) -> list[tuple[int, ...]]:
    return [read_fingerprint(digits) for digits in compute_fingerprints(rows)]


@pytest.mark.parametrize("dimension", [16, 128, 1024])
def test_rounded_copies_are_the_same_and_near_vectors_are_not(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    rows = rng.normal(size=(500, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    own = fingerprint(rows)
    steps = rng.normal(size=rows.shape)
    steps *= 0.02 / np.linalg.norm(steps, axis=1, keepdims=True)
    copies = [rows.astype(np.float16).astype(np.float32), np.round(rows, 5), 7 * rows]
    for copy in copies:
        assert all(map(are_same, own, fingerprint(copy)))
    near = fingerprint((rows + steps).astype(np.float32))
    assert sum(map(are_same, own, near)) <= 1
    assert not any(are_same(own[0], other) for other in own[1:])


def test_fingerprints_are_the_same_for_ever_and_alone_as_among_others() -> None:
    row = np.array([[0.6, 0.8, 0.0]], dtype=np.float32)
    (alone,) = compute_fingerprints(row)
    assert alone == "e4a81b58e4a8fc18fc18fc18e4a803e8"
    assert read_fingerprint(alone) == (-7000, 7000, -7000, -1000, -1000, -1000, -7000, 1000)
    assert len(read_fingerprint(alone)) == LENGTH
    assert compute_fingerprints(np.repeat(row, 5, axis=0)) == 5 * [alone]
    many = np.full((2, 4_096), 1.0, dtype=np.float32) * np.sign(np.arange(4_096) % 2 - 0.5)
    assert set(compute_fingerprints(many.astype(np.float32))) == set(
        compute_fingerprints(many[:1].astype(np.float32))
    )


def test_a_mean_that_cancels_out_has_the_fingerprint_of_zeros() -> None:
    rows = np.array([[0, 0, 0], [0.6, 0.8, 0]], dtype=np.float32)
    nothing, row = compute_fingerprints(rows)
    assert read_fingerprint(nothing) == (0,) * LENGTH
    assert compute_fingerprints(rows[:1]) == [nothing]
    assert compute_fingerprints(rows[1:]) == [row]
