"""Truth by simulation: do operating points hold on fresh classes as often as they say?

Draws of class-clustered data, calibrated by the code that ``limen calibrate`` runs, judged by a large
population of classes from the same law. Prints one table in Markdown; ends with exit code 1 where a
bar is missed. ``--draws 500`` takes about ten minutes on two cores.

    python -P benchmarks/statistics.py --draws 500
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api_schemas.errors import CalibrationRefused
from api_schemas.operating_point import GallerySize, Target
from decision.embeddings import EmbeddingSet
from decision.score import CosineScorer
from evaluation.bounds import pair_share, resampled_classes
from evaluation.calibrate import LEAST_CLASSES, calibrate, choose
from evaluation.density import scored_pairs
from evaluation.identification_threshold import (
    UnknownTail,
    collect_unknown,
    match_weights,
    plan_gallery,
    tail_level,
    tail_start,
)
from evaluation.pair_threshold import genuine_pairs
from evaluation.tails import accepted_pairs

CLASSES, EACH, DIMENSION = 120, 8, 32
TARGET, CONFIDENCE = 0.01, 0.95
POPULATION = 3000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """How classes are drawn: their spread, and how far they are pulled to one crowded place."""

    name: str
    spread: float
    spread_sd: float
    hubs: str = "none"

    def draw(self, rng: np.random.Generator, classes: int) -> NDArray[np.float32]:
        """Float32 [classes, EACH, DIMENSION] unit rows."""
        centres = rng.standard_normal((classes, DIMENSION))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        crowd = np.zeros(DIMENSION)
        crowd[0] = 1.0
        if self.hubs == "graded":  # every class is pulled to the crowd, most a little, some far
            pull = (0.4 * rng.beta(1, 2, classes))[:, None]
            centres = (1 - pull) * centres + pull * crowd
        elif self.hubs == "few":  # 5 % of the classes lie where all others lean to
            centres = centres + 0.5 * crowd
            hub = rng.random(classes) < 0.05
            centres[hub] = crowd + 0.5 * (centres[hub] - 0.5 * crowd)
        elif self.hubs == "clique":  # 10 % of the classes lie close together, apart from the others
            pull = np.where(rng.random(classes) < 0.1, 0.45, 0.0)[:, None]
            centres = (1 - pull) * centres + pull * crowd
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        spread = self.spread * np.exp(self.spread_sd * rng.standard_normal(classes))
        noise = rng.standard_normal((classes, EACH, DIMENSION)) / np.sqrt(DIMENSION)
        items = centres[:, None] + spread[:, None, None] * noise
        items /= np.linalg.norm(items, axis=2, keepdims=True)
        rows: NDArray[np.float32] = items.astype(np.float32)
        return rows

    def items(self, seed: int, classes: int) -> EmbeddingSet:
        """A fresh sample of classes."""
        drawn = self.draw(np.random.default_rng([seed, 1]), classes)
        return EmbeddingSet.from_arrays(drawn.reshape(-1, DIMENSION), np.repeat(np.arange(classes), EACH))


LAWS = [
    Law("unequal spreads", 1.0, 0.4),
    Law("hubs, graded", 1.0, 0.3, "graded"),
    Law("hubs, 5 % of classes", 1.0, 0.3, "few"),
    Law("clique of 10 %", 1.0, 0.3, "clique"),
    Law("unequal spreads, tight", 0.5, 0.4),
]
GALLERIES = (30, 120)


def true_rates(law: Law) -> dict[str, tuple[Floats, Floats]]:
    """Thresholds and the rate at each, for FAR and for the FPIR at each gallery, from a population."""
    drawn = law.draw(np.random.default_rng(2**31), POPULATION)
    flat = drawn.reshape(-1, DIMENSION)
    grid = np.linspace(-0.2, 1.0, 2401)
    far = np.zeros(len(grid))
    fpir = {size: np.zeros(len(grid)) for size in GALLERIES}
    matched_by = {
        size: np.concatenate([[0.0], np.cumsum(match_weights(POPULATION - 1, size, POPULATION - 1))])
        for size in GALLERIES
    }
    queries = np.arange(0, len(flat), 4)
    for block in np.array_split(queries, len(queries) // 250):
        scores = (flat[block] @ flat.T).reshape(len(block), POPULATION, EACH)
        own = block // EACH
        scores[np.arange(len(block)), own] = -2.0
        counts = np.histogram(scores, np.append(grid, 1.1))[0]
        far += counts[::-1].cumsum()[::-1]
        best = np.sort(scores.max(axis=2), axis=1)
        for row in best:
            above = POPULATION - np.searchsorted(row, grid, side="left")
            for size in GALLERIES:
                fpir[size] += matched_by[size][np.minimum(above, POPULATION - 1)]
    rates = {"far": (grid, far / (len(queries) * (POPULATION - 1) * EACH))}
    return rates | {f"fpir {size}": (grid, rate / len(queries)) for size, rate in fpir.items()}


@dataclass(frozen=True)
class Draw:
    """One draw: the threshold chosen, and the interval at the threshold where the truth is the target."""

    threshold: float | None
    lower: float
    upper: float
    bound: float


def one_draw(law: Law, quantity: str, at_truth: float, seed: int) -> Draw:
    """Calibrate on fresh classes for one quantity."""
    pairs = scored_pairs(law.items(seed, CLASSES), CosineScorer())
    weights = resampled_classes(CLASSES, seed)
    if quantity == "far":
        target = Target(kind="far", value=TARGET, confidence=CONFIDENCE)
        interval = pair_share(
            accepted_pairs(pairs, at_truth), pairs.a.sizes.astype(np.float64), weights, CONFIDENCE
        )
    else:
        size = GallerySize(items=EACH * int(quantity.split()[1]), classes=int(quantity.split()[1]))
        target = Target(kind="fpir", value=TARGET, confidence=CONFIDENCE, gallery=size)
        plan = plan_gallery(len(pairs.a), CLASSES, size)
        allowed = plan.at_classes(TARGET)
        unknown = collect_unknown(pairs, tail_level(allowed, len(pairs.a)), plan.classes)
        tail = UnknownTail(unknown, min(tail_start(unknown, allowed), at_truth), weights)
        interval = tail.interval(at_truth, CONFIDENCE).transformed(plan.at_wanted)
    try:
        threshold = choose(pairs, genuine_pairs(pairs), target, weights, seed=seed).threshold
    except CalibrationRefused:
        threshold = None
    return Draw(threshold, interval.lower, interval.upper, interval.bound)


def refuses_few_classes() -> bool:
    """Whether three classes are refused."""
    try:
        calibrate(LAWS[0].items(0, 3), Target(kind="far", value=TARGET), name="few", model_hash="none")
    except CalibrationRefused as refusal:
        return str(LEAST_CLASSES) in str(refusal)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    missed = 0
    print(f"{arguments.draws} draws, {CLASSES} classes x {EACH}, target {TARGET:.0%}, {CONFIDENCE:.0%}\n")
    print("| law | quantity | within target | median of target | two-sided coverage | refused |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(arguments.workers) as pool:
        for law, rates in zip(LAWS, pool.map(true_rates, LAWS), strict=True):
            for quantity, (grid, rate) in rates.items():
                place = int(np.argmax(rate <= TARGET))
                at_truth, truth = float(grid[place]), float(rate[place])
                n = arguments.draws
                draws = list(
                    pool.map(one_draw, [law] * n, [quantity] * n, [at_truth] * n, range(n), chunksize=10)
                )
                chosen = np.array([draw.threshold for draw in draws if draw.threshold is not None])
                reached = np.interp(chosen, grid, rate)
                within, median = float(np.mean(reached <= TARGET)), float(np.median(reached)) / TARGET
                covered = float(np.mean([draw.lower <= truth <= draw.upper for draw in draws]))
                good = within >= 0.93 and median >= 0.6 and 0.90 <= covered <= 0.98
                missed += not good
                print(
                    f"| {law.name} | {quantity} | {within:.3f} | {median:.2f} | {covered:.3f} | "
                    f"{n - len(chosen)} |{'' if good else ' misses a bar'}",
                    flush=True,
                )
    few = refuses_few_classes()
    print(f"\nThree classes are {'refused' if few else 'NOT refused'}.")
    return int(missed > 0 or not few)


if __name__ == "__main__":
    sys.exit(main())
