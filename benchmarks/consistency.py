"""Truth by simulation: is debiased OPIS zero where classes do not differ, and does its interval cover?

    python -m benchmarks.consistency [--draws 200]

Identical classes: orthonormal centres, one law, 8 items a class; the debiased value must be 0 within two
standard errors of its mean. Unequal classes: spreads drawn from 0.3 to 1.0; the truth is the mean over
draws of 1,200 classes, the interval of 30 and of 120 classes is counted when it holds it.
"""

from __future__ import annotations

import argparse

import numpy as np

from api_schemas.report import Consistency
from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs

ITEMS = 8
TRUTH_CLASSES, TRUTH_DRAWS = 1200, 8


def make_identical(seed: int, classes: int = 60) -> EmbeddingSet:
    """Every class the same but for a rotation."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(np.eye(classes), ITEMS, axis=0)
    vectors = centres + 0.25 * draw.normal(size=centres.shape)
    return EmbeddingSet.from_arrays(vectors, np.repeat(np.arange(classes), ITEMS))


def make_unequal(seed: int, classes: int, dimension: int = 16) -> EmbeddingSet:
    """Random centres, a spread of its own for each class."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(classes, dimension)), ITEMS, axis=0)
    spread = np.repeat(draw.uniform(0.3, 1.0, classes), ITEMS)[:, None]
    vectors = centres + spread * draw.normal(size=centres.shape)
    return EmbeddingSet.from_arrays(vectors, np.repeat(np.arange(classes), ITEMS))


def measure(items: EmbeddingSet, seed: int) -> Consistency:
    """The report's section, without the rest of the report."""
    return measure_consistency(sweep_pairs(arrange(items)), OpisSettings(), seed)[0]


def main() -> None:
    """Print one line per statement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    results = [measure(make_identical(seed), seed) for seed in range(draws)]
    for name in ("opis", "opis_logfar"):
        plain = np.array([getattr(result, name) for result in results])
        values = np.array([getattr(result, f"{name}_debiased") for result in results])
        error = values.std(ddof=1) / np.sqrt(draws)
        print(
            f"identical classes, {name}: plain {plain.mean():.6f}, debiased {values.mean():+.6f}, "
            f"standard error {error:.6f}: {abs(values.mean()) / error:.1f} of them from 0"
        )
    truth = [measure(make_unequal(10**6 + seed, TRUTH_CLASSES), seed) for seed in range(TRUTH_DRAWS)]
    for name in ("opis", "opis_logfar"):
        target = np.mean([getattr(result, f"{name}_debiased") for result in truth])
        for classes in (30, 120):
            drawn = [measure(make_unequal(seed, classes), seed) for seed in range(draws)]
            ends = np.array([getattr(result, f"{name}_ci") for result in drawn])
            covered = np.mean((ends[:, 0] <= target) & (target <= ends[:, 1]))
            mean = np.mean([getattr(result, f"{name}_debiased") for result in drawn])
            print(
                f"unequal classes, {name}, {classes} classes: truth {target:.5f}, mean estimate {mean:.5f}, "
                f"95 % intervals that hold the truth {covered:.3f}"
            )


if __name__ == "__main__":
    main()
