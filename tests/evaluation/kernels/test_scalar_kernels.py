"""Functions of single scores against their definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from evaluation.kernels.compiled import compiled
from evaluation.kernels.scalar_kernels import compute_utility, find_bin
from evaluation.pairs.sweep import ScoreBins


@pytest.mark.parametrize("c", [1, 2, Fraction(1, 2)])
def test_utility_is_the_f_score_of_specificity_and_sensitivity(c: Fraction) -> None:
    grid = [Fraction(k, 7) for k in range(8)]
    for phi in grid:
        for psi in grid:
            below = c * c * phi + psi
            expected = (1 + c * c) * phi * psi / below if below else 0
            assert compute_utility(float(phi), float(psi), float(c)) == pytest.approx(
                float(expected), abs=1e-15
            )


def test_utility_of_arrays_is_that_inside_a_compiled_loop() -> None:
    @compiled
    def loop(phi: np.ndarray, psi: np.ndarray, out: np.ndarray) -> None:
        for k in range(len(phi)):
            out[k] = compute_utility(phi[k], psi[k], 1.0)

    phi, psi = np.random.default_rng(0).integers(0, 5, (2, 300)) / 4
    looped = np.empty(300)
    loop(phi, psi, looped)
    np.testing.assert_array_equal(looped, compute_utility(phi, psi, 1.0))
    assert compute_utility(phi.reshape(3, 100), psi.reshape(3, 100), 1.0).shape == (3, 100)


def test_bins_are_those_of_the_arrays() -> None:
    bins = ScoreBins.cover(-0.3, 0.8)
    scores = np.random.default_rng(1).uniform(-1, 1, 500).astype(np.float32)
    numbers = [find_bin(score, bins.scale, bins.lowest, np.float32(bins.count - 1)) for score in scores]
    np.testing.assert_array_equal(numbers, bins.find(scores))
