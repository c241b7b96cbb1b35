"""Sample size: the classes and items a target would need, judged from a pilot sample.

The width of a class-resampled bound on log scale has two parts: what classes bring, which shrinks with
the number of classes, and what single pairs of classes bring, which shrinks with its square. Both are
measured on the pilot where its rates are, and scaled to other numbers of classes and to other rates: what
single pairs bring grows as pairs become rare. A 1:N rate is extrapolated by its tail as in
``match_rate_tail.py``, from the rate at which a sample of that many classes would start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from api_schemas.operating_point import GallerySize, Target
from common.array_types import Float64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.bootstrap_bounds import (
    PairFractions,
    build_class_matrix,
    compute_degrees_of_freedom,
)
from evaluation.calibration.fpir_thresholds import get_search_rule, plan_gallery
from evaluation.calibration.impostor_scores import collect_tail, sample_impostor_scores
from evaluation.calibration.match_rate_tail import MIN_TRIALS, MatchRateTail, compute_start_rate
from evaluation.calibration.pair_thresholds import MIN_PAIRS, CalibrationSet
from evaluation.calibration.sets.sources import LEAST_CLASSES
from evaluation.pairs.pairs import Pairs, arrange

USEFUL = 0.6  # a bound this tight leaves a threshold whose rate is this fraction of the target
ASSURED = 0.9  # fraction of samples of the planned size whose bound is that tight
PILOT_CLASSES = 5
PILOT_PAIRS = 10
MOST_CLASSES = 10_000_000


@dataclass(frozen=True)
class DataPlan:
    """Least data that supports a target and leaves at least ``USEFUL`` of it, at the pilot's items per class.

    ``least_classes`` support it at all; ``sentence`` is the answer in words.
    """

    classes: int
    items: int
    least_classes: int
    sentence: str


def plan_data(pilot: EmbeddingSet, target: Target, *, seed: int = 0, track: Track = silent) -> DataPlan:
    """The data that a ``far`` or ``fpir`` target needs, judged from a pilot sample.

    Raises:
        CalibrationRefused: the pilot is too small even for that, or the target has no rate to plan for.
    """
    if target.kind not in ("far", "fpir") or target.value is None:
        raise CalibrationRefused(f"A plan is for a FAR or an FPIR, the target is {target.kind}.")
    n_classes = len(pilot.classes)
    if n_classes < PILOT_CLASSES:
        raise CalibrationRefused(
            f"A pilot of {n_classes} classes says nothing about classes: at least {PILOT_CLASSES} are needed."
        )
    data = CalibrationSet(arrange(pilot), target, seed, track, draws=1)
    plan = _plan_far if target.kind == "far" else _plan_fpir
    is_supported, is_useful = plan(data)
    least = _find_least(is_supported, LEAST_CLASSES)
    classes = _find_least(is_useful, least)
    each = len(pilot) / n_classes
    items = math.ceil(classes * each)
    return DataPlan(
        classes,
        items,
        least,
        f"{target.kind} {target.value:g} at {target.confidence:g} confidence: about {classes} classes of "
        f"{each:.3g} items ({items} items) give a threshold with at least {USEFUL:.0%} of the target; below "
        f"{least} classes it is refused; the pilot has {n_classes}.",
    )


class PilotSpread:
    """Ratio of the bound of a rate, the first fraction, to its estimate for other sample sizes."""

    def __init__(self, fractions: PairFractions, confidence: float) -> None:
        self.fractions = fractions
        self.confidence = confidence
        self.rate = float(fractions.values[0])

    def compute_excess(self, n: int, rate: float, gradient: Float64s) -> float:
        """Logarithm of bound over estimate that ``ASSURED`` of all samples of n classes stay below.

        Args:
            n: how many classes.
            rate: where the fractions are counted; single pairs bring the more, the rarer they are.
            gradient: float [fractions], of the logarithm, at the pilot's values.
        """
        fewer = self.fractions.n / n
        by_class, by_pair = self.fractions.compute_variance(gradient)
        variance = by_class * fewer + by_pair * fewer**2 * self.rate / rate
        influence = self.fractions.compute_influence(gradient)
        if not influence @ influence > 0 or not variance > 0:
            return 0.0
        freedom = compute_degrees_of_freedom(influence, n, by_class + by_pair)
        wide = math.exp(ndtri(ASSURED) / math.sqrt(2 * freedom))  # of the error as it is estimated
        return float(stdtrit(freedom, self.confidence) * wide * math.sqrt(variance))


Condition = Callable[[int], bool]


def _plan_far(data: CalibrationSet) -> tuple[Condition, Condition]:
    """Whether a number of classes supports the target at all, and whether usefully."""
    pairs, far = data.pairs, data.rate
    n_classes, each = len(pairs.classes), len(pairs.a) / len(pairs.classes)
    drawn = sample_impostor_scores(pairs, data.seed)
    floor = max(far, PILOT_PAIRS / pairs.n_impostor)
    tail = collect_tail(pairs, float(drawn[min(int(floor * len(drawn)), len(drawn) - 1)]), data.track)
    _check_pilot(len(tail), pairs)
    sizes = pairs.a.sizes.astype(np.float64)
    matrix = build_class_matrix(*tail.codes, np.full(len(tail), 2.0), n_classes)
    fractions = PairFractions([matrix], sizes, sizes, data.weights)
    spread, gradient = PilotSpread(fractions, data.target.confidence), 1 / fractions.values

    def is_supported(n: int) -> bool:
        rate = MIN_PAIRS / (n * (n - 1) / 2 * each**2)
        return rate < far and spread.compute_excess(n, rate, gradient) <= math.log(far / rate)

    def is_useful(n: int) -> bool:
        return spread.compute_excess(n, USEFUL * far, gradient) <= math.log(1 / USEFUL)

    return is_supported, is_useful


def _plan_fpir(data: CalibrationSet) -> tuple[Condition, Condition]:
    """The same for an FPIR: by the match rate of one class, extrapolated by its tail."""
    pairs, target = data.pairs, data.target
    n_classes, each = len(pairs.classes), len(pairs.a) / len(pairs.classes)

    def compute_allowed(n: int) -> float:
        gallery = target.gallery or GallerySize(items=round(n * each), classes=n)
        return plan_gallery(round(n * each), n, gallery).compute_match_rate(data.rate)

    trials = len(pairs.a) * (n_classes - 1)
    start = max(compute_start_rate(compute_allowed(n_classes), n_classes), 2 * PILOT_PAIRS / trials)
    unknown = data.scored.score_trials(get_search_rule(target)).collect_top(start)
    _check_pilot(len(unknown.scores) // 2, pairs)
    pilot = MatchRateTail(unknown, unknown.find_score(start), data.weights)
    spread, values = PilotSpread(pilot.fractions, target.confidence), pilot.fractions.values

    def compute_counted(n: int) -> float:
        """The match rate a tail of n classes would start from."""
        return compute_start_rate(compute_allowed(n), n)

    def is_supported(n: int) -> bool:
        counted = compute_counted(n)
        expected = counted * n * each * (n - 1)
        excess = spread.compute_excess(n, counted, np.array([1 / values[0], 0.0]))
        return bool(expected * math.exp(-excess) >= MIN_TRIALS)

    def is_useful(n: int) -> bool:
        counted = compute_counted(n)
        extrapolated = math.log(counted / (USEFUL * compute_allowed(n)))
        gradient = np.array([1 - extrapolated, extrapolated]) / values
        return spread.compute_excess(n, counted, gradient) <= math.log(1 / USEFUL)

    return is_supported, is_useful


def _check_pilot(alike: int, pairs: Pairs) -> None:
    if alike < PILOT_PAIRS:
        raise CalibrationRefused(
            f"The pilot's {pairs.n_impostor} impostor pairs hold fewer than {PILOT_PAIRS} alike; "
            "give a larger one."
        )


def _find_least(is_enough: Condition, start: int) -> int:
    """The least number of classes from ``start`` on that is enough; more is enough, too."""
    high = start
    while not is_enough(high):
        if high > MOST_CLASSES:
            raise CalibrationRefused(
                f"More than {MOST_CLASSES} classes would be needed; give a larger pilot, or a higher target."
            )
        high *= 2
    low = max(start - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
