"""Classes of a batch chosen together: against a plain loop, and where neighbours decide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.array_types import Bools, Float64s
from index.search.joint_match import (
    CHANGE,
    MOST_UPDATES,
    ROUNDS,
    SCALE,
    SETTLED,
    WEIGHT,
    label_jointly,
)


def label_by_loops(queries: Float64s, sums: Float64s, counts: list[int], allowed: Bools) -> list[list[float]]:
    """The formula, number by number."""
    n, c = allowed.shape

    def soften(values: list[float]) -> list[float]:
        top = max(values)
        weights = [math.exp(value - top) for value in values]
        return [weight / sum(weights) for weight in weights]

    neighbours = []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: (-float(queries[i] @ queries[j]), j))
        neighbours.append(others[:3])
    centres = [sums[k] / counts[k] for k in range(c)]
    energy = math.inf
    belongs: list[list[float]] = []
    for _ in range(ROUNDS):
        costs = [
            [
                SCALE * float(((queries[i] - centres[k]) ** 2).sum()) if allowed[i, k] else math.inf
                for k in range(c)
            ]
            for i in range(n)
        ]
        belongs = [soften([-cost for cost in row]) for row in costs]
        for _ in range(MOST_UPDATES):
            updated = [
                soften([WEIGHT * sum(belongs[j][k] for j in neighbours[i]) - costs[i][k] for k in range(c)])
                for i in range(n)
            ]
            change = max(abs(updated[i][k] - belongs[i][k]) for i in range(n) for k in range(c))
            belongs = updated
            if change < SETTLED:
                break
        before, energy = energy, 0.0
        for i in range(n):
            for k in range(c):
                y = belongs[i][k]
                agreement = sum(belongs[j][k] for j in neighbours[i])
                energy += y * (costs[i][k] + math.log(y)) - WEIGHT / 2 * y * agreement if y > 0 else 0.0
        if abs(before - energy) <= CHANGE * abs(energy):
            break
        centres = [
            (sums[k] + sum(belongs[i][k] * queries[i] for i in range(n)))
            / (counts[k] + sum(belongs[i][k] for i in range(n)))
            for k in range(c)
        ]
    return belongs


def draw_unit_rows(n: int, dim: int, seed: int) -> Float64s:
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("n", [1, 3, 12])
def test_it_is_what_a_plain_loop_gives(n: int) -> None:
    queries, supports = draw_unit_rows(n, 6, 1), draw_unit_rows(5, 6, 2)
    counts = np.array([1, 2, 1, 3, 1])
    sums = supports * counts[:, None] * 0.9
    allowed = np.random.default_rng(3).random((n, 5)) < 0.7
    allowed[:, 4] = True
    found = label_jointly(queries.astype(np.float32), sums, counts, allowed)
    expected = label_by_loops(queries.astype(np.float32).astype(float), sums, counts.tolist(), allowed)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (found[~allowed] == 0).all()


def test_neighbours_outvote_a_class_that_is_a_little_nearer() -> None:
    """Five queries of class 0; one of them alone lies a little nearer to class 1."""
    first, second, third = np.eye(3)
    supports = np.stack([first, second])
    near = [first + 0.45 * second + 0.05 * k * third for k in range(4)]
    odd = 0.68 * first + 0.73 * second
    queries = np.stack([*near, odd])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    allowed = np.ones((5, 2), dtype=bool)
    alone = label_jointly(queries[4:].astype(np.float32), supports, np.array([1, 1]), allowed[4:])
    together = label_jointly(queries.astype(np.float32), supports, np.array([1, 1]), allowed)
    assert alone.argmax(axis=1).tolist() == [1]
    assert together.argmax(axis=1).tolist() == [0] * 5
