"""The kernel gives a pair the same similarity whatever it is computed with."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embeddings.similarity import compute_pair_similarities


@pytest.mark.parametrize("dimension", [1, 7, 64, 129, 512])
def test_a_pair_does_not_depend_on_its_batch(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    a = rng.normal(size=(300, dimension)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = a[rng.permutation(300)]
    together = compute_pair_similarities(a, b)
    alone = np.concatenate([compute_pair_similarities(a[i : i + 1], b[i : i + 1]) for i in range(300)])
    slices = np.concatenate([compute_pair_similarities(a[i : i + 7], b[i : i + 7]) for i in range(0, 300, 7)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, slices)
    np.testing.assert_array_equal(together, compute_pair_similarities(b, a))
    np.testing.assert_array_equal(
        compute_pair_similarities(a[:1], b), compute_pair_similarities(np.repeat(a[:1], 300, 0), b)
    )


def test_the_sum_is_taken_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 512)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    exact = [
        math.fsum(float(x) * float(y) for x, y in zip(p, q, strict=True)) for p, q in zip(a, b, strict=True)
    ]
    np.testing.assert_array_equal(compute_pair_similarities(a, b), np.array(exact, dtype=np.float32))


def test_similarities_stay_within_one() -> None:
    row = np.full((1, 3), np.float32(1 / np.sqrt(3)) * np.float32(1.0000001))
    assert compute_pair_similarities(row, row)[0] == 1.0
    assert compute_pair_similarities(row, -row)[0] == -1.0
