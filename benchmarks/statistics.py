"""Truth by simulation: do operating points hold on fresh classes as often as they say?

Draws of class-clustered data, calibrated by the code that ``limen calibrate`` runs, judged by a large
population of classes from the same law. Prints one table in Markdown; ends with exit code 1 where a
bar is missed. ``--estimated``: are best estimates of few classes within a factor of two? ``--door``: a
gallery of three residents, with a cohort of 100 others, judged by strangers at that door. With
``--embeddings`` real classes are split in halves, again and again, instead.

    python -m benchmarks.statistics --draws 500
    python -m benchmarks.statistics --draws 500 --estimated
    python -m benchmarks.statistics --draws 500 --door
    python -m benchmarks.statistics --embeddings clinc150_minilm.npz --draws 100
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from api_schemas.operating_point import GallerySize, Target, TargetKind
from common.array_types import Float32s, Float64s
from common.errors import CalibrationRefused
from common.progress import silent
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.bootstrap_bounds import Interval, estimate_pair_fraction_interval
from evaluation.calibration.calibrate import Calibrator, calibrate_threshold
from evaluation.calibration.estimates.fpir_estimate import FpirEstimate
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, collect_unknown, plan_gallery
from evaluation.calibration.impostor_scores import count_accepted_pairs
from evaluation.calibration.match_rate_tail import fit_match_rate_tail
from evaluation.calibration.pair_thresholds import CalibrationSet
from evaluation.calibration.select_threshold import select_threshold
from evaluation.calibration.sets.sources import LEAST_CLASSES, CalibrationSources
from evaluation.kernels.compiled import compiled
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import Pairs, arrange

CLASSES, EACH, DIMENSION = 120, 8, 32
TARGET, CONFIDENCE = 0.01, 0.95
POPULATION = 40_000
QUERIES = 50  # at a time
GRID = np.linspace(-0.2, 1.0, 2401)
GALLERIES = (30, 120)
ESTIMATED_CLASSES = (20, 40, 120)
ESTIMATED_TARGETS = (0.1, 0.03, 0.01)
FACTOR = 2.0
RESIDENTS, COHORT, STRANGERS = 3, 100, 4000
QUANTITIES = ("far", *(f"fpir {size}" for size in GALLERIES))


@dataclass(frozen=True)
class Law:
    """Sampling of classes: their spread, and how far they are pulled to one dense region."""

    name: str
    spread: float
    spread_sd: float
    hubs: str = "none"

    def draw(self, rng: np.random.Generator, classes: int) -> Float32s:
        """Float32 [classes, EACH, DIMENSION] unit rows."""
        centres = rng.standard_normal((classes, DIMENSION))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        centre = np.zeros(DIMENSION)
        centre[0] = 1.0
        if self.hubs == "graded":  # every class is pulled to one centre, most a little, some far
            pull = (0.4 * rng.beta(1, 2, classes))[:, None]
            centres = (1 - pull) * centres + pull * centre
        elif self.hubs == "few":  # 5 % of the classes lie where all others lean to
            centres = centres + 0.5 * centre
            hub = rng.random(classes) < 0.05
            centres[hub] = centre + 0.5 * (centres[hub] - 0.5 * centre)
        elif self.hubs == "clique":  # 10 % of the classes lie close together, apart from the others
            pull = np.where(rng.random(classes) < 0.1, 0.45, 0.0)[:, None]
            centres = (1 - pull) * centres + pull * centre
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        spread = self.spread * np.exp(self.spread_sd * rng.standard_normal(classes))
        noise = rng.standard_normal((classes, EACH, DIMENSION)) / np.sqrt(DIMENSION)
        items = centres[:, None] + spread[:, None, None] * noise
        items /= np.linalg.norm(items, axis=2, keepdims=True)
        rows: Float32s = items.astype(np.float32)
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


@compiled
def count(scores: Float32s, low: float, step: float, pairs: Float64s, best: Float64s) -> None:
    """Add one query's scores, by class and item, and its best score in each class to histograms."""
    for first in range(0, len(scores), EACH):
        highest = np.float32(-1)
        for score in scores[first : first + EACH]:
            highest = max(highest, score)
            pairs[max(int((score - low) / step), 0)] += 1
        best[max(int((highest - low) / step), 0)] += 1


def compute_true_rates(law: Law) -> dict[str, Float64s]:
    """FAR and the FPIR at each gallery for a threshold at each point of GRID, from two populations.

    One query of every class of the first meets every item of the second. What a class brings to a rate
    shrinks as with twice their number of classes: its error is 0.04 of that of a sample of CLASSES.
    """
    queries = law.draw(np.random.default_rng([2**31, 0]), POPULATION)[:, 0]
    gallery = law.draw(np.random.default_rng([2**31, 1]), POPULATION).reshape(-1, DIMENSION)
    sizes = sorted({*GALLERIES, *ESTIMATED_CLASSES})
    pairs, missed = np.zeros(len(GRID)), {size: np.zeros(len(GRID)) for size in sizes}
    for start in range(0, POPULATION, QUERIES):
        block = queries[start : start + QUERIES] @ gallery.T
        best = np.zeros((len(block), len(GRID)))
        for row, scores in enumerate(block):
            count(scores, GRID[0], GRID[1] - GRID[0], pairs, best[row])
        matched = best[:, ::-1].cumsum(axis=1)[:, ::-1] / POPULATION
        for size in sizes:
            missed[size] += ((1 - matched) ** size).sum(axis=0)
    far = pairs[::-1].cumsum()[::-1] / (POPULATION**2 * EACH)
    return {"far": far} | {f"fpir {size}": 1 - missed[size] / POPULATION for size in sizes}


@dataclass(frozen=True)
class Draw:
    """One draw: the threshold chosen, and the interval at the threshold where the truth is the target."""

    threshold: float | None
    interval: Interval


def make_draw(law: Law, at_truth: dict[str, float], seed: int) -> dict[str, Draw]:
    """Calibrate on fresh classes for every quantity."""
    pairs = arrange(law.items(seed, CLASSES))
    weights = draw_classes(CLASSES, seed)
    results = {}
    for quantity, truth in at_truth.items():
        gallery = None
        if quantity != "far":
            size = int(quantity.split()[1])
            gallery = GallerySize(items=EACH * size, classes=size)
        threshold = select(pairs, gallery, seed)
        results[quantity] = Draw(threshold, compute_interval_at(pairs, gallery, truth, weights))
    return results


def select(pairs: Pairs, gallery: GallerySize | None, seed: int) -> float | None:
    """The threshold for a FAR, or for an FPIR where there is a gallery; None where it is refused."""
    kind: TargetKind = "far" if gallery is None else "fpir"
    target = Target(kind=kind, value=TARGET, confidence=CONFIDENCE, gallery=gallery)
    try:
        return select_threshold(CalibrationSet(pairs, target, seed)).threshold
    except CalibrationRefused:
        return None


def compute_interval_at(
    pairs: Pairs, gallery: GallerySize | None, threshold: float, weights: Float64s
) -> Interval:
    """The interval of the rate at one threshold."""
    if gallery is None:
        sizes = pairs.a.sizes.astype(np.float64)
        return estimate_pair_fraction_interval(
            count_accepted_pairs(pairs, threshold), sizes, weights, CONFIDENCE
        )
    plan = plan_gallery(len(pairs.a), CLASSES, gallery)
    allowed = plan.compute_match_rate(TARGET)
    rule = SEARCH_RULES["nearest"]
    unknown = collect_unknown(rule.score_trials(pairs, silent), rule, allowed)
    tail = fit_match_rate_tail(unknown, allowed, weights, below=threshold)
    assert tail is not None
    return tail.compute_interval(threshold, CONFIDENCE).transform(plan.compute_fpir)


def simulate(pool: ProcessPoolExecutor, laws: list[Law], draws: int) -> int:
    """Print a row per law and quantity; how many bars are missed."""
    missed = 0
    print("| law | quantity | within target | median of target | two-sided coverage | refused |")
    print("| --- | --- | --- | --- | --- | --- |")
    for law, rates in zip(laws, pool.map(compute_true_rates, laws), strict=True):
        logs = {quantity: np.log(np.maximum(rate, 1e-9)) for quantity, rate in rates.items()}
        at_truth = {quantity: float(np.interp(-np.log(TARGET), -log, GRID)) for quantity, log in logs.items()}
        results = list(pool.map(partial(make_draw, law, at_truth), range(draws), chunksize=5))
        for quantity in QUANTITIES:
            of_quantity = [result[quantity] for result in results]
            thresholds = [draw.threshold for draw in of_quantity if draw.threshold is not None]
            reached = np.exp(np.interp(thresholds, GRID, logs[quantity])) / TARGET
            within, median = float(np.mean(reached <= 1)), float(np.median(reached))
            held = [draw.interval.lower <= TARGET <= draw.interval.upper for draw in of_quantity]
            covered = float(np.mean(held))
            good = within >= 0.93 and median >= 0.6 and 0.90 <= covered <= 0.98
            missed += not good
            print(
                f"| {law.name} | {quantity} | {format_fraction(within, draws)} | {median:.2f} | "
                f"{format_fraction(covered, draws)} | {draws - len(thresholds)} |"
                f"{'' if good else ' misses a bar'}",
                flush=True,
            )
    return missed


def estimate_rungs(law: Law, classes: int, seed: int) -> dict[float, float]:
    """The estimated FPIR threshold of every target, for the gallery of the classes drawn."""
    data = CalibrationSet(arrange(law.items(seed, classes)), Target(kind="fpir", value=TARGET), seed)
    trials = data.scored.score_trials(SEARCH_RULES["nearest"])
    estimate = FpirEstimate(trials, trials, classes)
    return {target: estimate.find_threshold(target) for target in ESTIMATED_TARGETS}


def simulate_estimates(pool: ProcessPoolExecutor, laws: list[Law], draws: int) -> int:
    """Print a row per law, number of classes and target; how many bars are missed."""
    missed = 0
    print("| law | classes | target FPIR | within a factor of two | median of target | 10 % to 90 % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for law, rates in zip(laws, pool.map(compute_true_rates, laws), strict=True):
        for classes in ESTIMATED_CLASSES:
            logs = np.log(np.maximum(rates[f"fpir {classes}"], 1e-9))
            drawn = list(pool.map(partial(estimate_rungs, law, classes), range(draws), chunksize=5))
            for target in ESTIMATED_TARGETS:
                thresholds = [rungs[target] for rungs in drawn]
                reached = np.exp(np.interp(thresholds, GRID, logs)) / target
                missed += print_reached(f"{law.name} | {classes}", target, reached)
    return missed


def print_reached(what: str, target: float, reached: Float64s) -> bool:
    """Print a row of realised over wanted rates; whether too few are within a factor of two."""
    within = float(np.mean((reached >= 1 / FACTOR) & (reached <= FACTOR)))
    low, high = np.quantile(reached, [0.1, 0.9])
    good = within >= 0.8
    print(
        f"| {what} | {target:.1%} | {format_fraction(within, len(reached))} | {np.median(reached):.2f} | "
        f"{low:.2f} to {high:.2f} |{'' if good else ' misses the bar'}",
        flush=True,
    )
    return not good


def guard_door(law: Law, seed: int) -> dict[float, tuple[float, float]]:
    """For every target: the FPIR of strangers at the door over it, and the fraction of residents missed."""
    rng = np.random.default_rng([seed, 9])
    rows = law.draw(rng, RESIDENTS + COHORT)
    strangers = law.draw(rng, STRANGERS)[:, 0]
    residents, cohort = (
        EmbeddingSet.from_arrays(part.reshape(-1, DIMENSION), np.repeat(np.arange(len(part)) + first, EACH))
        for part, first in ((rows[:RESIDENTS], 0), (rows[RESIDENTS:], 1000))
    )
    best = (strangers @ residents.vectors.T).max(axis=1)
    sources = CalibrationSources(residents, cohort=cohort)
    calibrator = Calibrator.prepare(sources, "cosine", "nearest", "none", seed=seed)
    reached = {}
    for target in ESTIMATED_TARGETS:
        gallery = GallerySize(items=len(residents), classes=RESIDENTS)
        data = calibrator.data.with_target(Target(kind="fpir", value=target, gallery=gallery))
        threshold = select_threshold(data, "estimated", calibrator.search).threshold
        missed = calibrator.search.known.measure_fnir(threshold)
        assert missed is not None
        reached[target] = float(np.mean(accepts(best, threshold))) / target, missed
    return reached


def simulate_door(pool: ProcessPoolExecutor, laws: list[Law], draws: int) -> int:
    """Print a row per law and target; how many bars are missed."""
    missed = 0
    print(f"{RESIDENTS} residents of {EACH} items, a cohort of {COHORT} others, {STRANGERS} strangers")
    print(
        "| law | residents missed | target FPIR | within a factor of two | median of target | 10 % to 90 % |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for law in laws:
        drawn = list(pool.map(partial(guard_door, law), range(draws), chunksize=5))
        for target in ESTIMATED_TARGETS:
            reached = np.array([door[target][0] for door in drawn])
            of_residents = float(np.mean([door[target][1] for door in drawn]))
            missed += print_reached(f"{law.name} | {of_residents:.0%}", target, reached)
    return missed


def format_fraction(value: float, n: int) -> str:
    """A fraction with its standard error."""
    return f"{value:.3f} ± {np.sqrt(value * (1 - value) / n):.3f}"


def split_halves(path: Path, draws: int) -> None:
    """Real classes: calibrate on one half, count on the other, for random halves."""
    with np.load(path, allow_pickle=False) as file:
        items = EmbeddingSet.from_arrays(file["embeddings"].astype(np.float32), file["labels"])
    items = items.select_classes(items.classes[items.classes != "oos"])
    half = len(items.classes) // 2
    reached: dict[str, list[float]] = {"far": [], "fpir": []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(items))
        few = np.concatenate([order[items.labels[order] == label][:EACH] for label in items.classes])
        part, classes = items.subset(np.sort(few)), rng.permutation(items.classes)
        fit = arrange(part.select_classes(classes[:half]))
        held_out = arrange(part.select_classes(classes[half : 2 * half]))
        for kind, gallery in (
            ("far", None),
            ("fpir", GallerySize(items=EACH * (half - 1), classes=half - 1)),
        ):
            threshold = select(fit, gallery, seed)
            if threshold is None:
                continue
            if gallery is None:
                rate = count_accepted_pairs(held_out, threshold).sum() / 2 / held_out.n_impostor
            else:
                rate = SEARCH_RULES["nearest"].score_trials(held_out, silent).measure_fpir(threshold) or 0.0
            reached[kind].append(float(rate) / TARGET)
    perfect = stats.norm.cdf(stats.norm.ppf(CONFIDENCE) / np.sqrt(2))
    print(f"{path.name}: {draws} random halves of {2 * half} classes, {EACH} items each; the other half is")
    print(f"a sample too, so that a perfect bound is met in {perfect:.0%}")
    for kind, rates in reached.items():
        met = float(np.mean(np.array(rates) <= 1))
        print(
            f"{kind}: within target {format_fraction(met, len(rates))}, "
            f"median {np.median(rates):.2f} of the target, refused {draws - len(rates)}"
        )


def is_refused_with_few_classes() -> bool:
    """True if three classes are refused."""
    try:
        calibrate_threshold(
            CalibrationSources(LAWS[0].items(0, 3)),
            Target(kind="far", value=TARGET),
            name="few",
            model_hash="none",
        )
    except CalibrationRefused as refusal:
        return str(LEAST_CLASSES) in str(refusal)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--laws", type=int, default=len(LAWS), help="only the first of the list")
    parser.add_argument("--estimated", action="store_true", help="best estimates of few classes")
    parser.add_argument("--door", action="store_true", help="three residents and a cohort")
    parser.add_argument("--embeddings", type=Path, help="an .npz file to split in halves instead")
    arguments = parser.parse_args()
    if arguments.embeddings is not None:
        split_halves(arguments.embeddings, arguments.draws)
        return 0
    print(f"{arguments.draws} draws, {CLASSES} classes x {EACH}, target {TARGET:.0%}, {CONFIDENCE:.0%}\n")
    with ProcessPoolExecutor(arguments.workers) as pool:
        for wanted, run in ((arguments.estimated, simulate_estimates), (arguments.door, simulate_door)):
            if wanted:
                return int(run(pool, LAWS[: arguments.laws], arguments.draws) > 0)
        missed = simulate(pool, LAWS[: arguments.laws], arguments.draws)
    few = is_refused_with_few_classes()
    print(f"\nThree classes are {'refused' if few else 'NOT refused'}.")
    return int(missed > 0 or not few)


if __name__ == "__main__":
    sys.exit(main())
