"""How many classes and items would a target need? Asked of a pilot sample, before collecting more.

The width of a class-resampled bound on log scale has two parts: what classes bring, which shrinks with
the number of classes, and what single pairs of classes bring, which shrinks with its square. Both are
measured on the pilot where its rates are, and scaled to other numbers of classes and to other rates: what
single pairs bring grows as pairs become rare. A 1:N rate is carried along its tail as in
``match_tail.py``, from the rate at which a sample of that many classes would start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from api_schemas.operating_point import GallerySize, Target
from common.array_types import Float64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.bootstrap_bounds import PairShares, class_matrix, resampled_classes
from evaluation.calibration.calibrate import LEAST_CLASSES
from evaluation.calibration.class_mean_scores import collect_trials
from evaluation.calibration.density_score import scored_pairs
from evaluation.calibration.fpir_thresholds import plan_gallery
from evaluation.calibration.impostor_tail import collect, sampled_rows
from evaluation.calibration.match_rate_tail import MatchTail, collect_unknown, tail_rate
from evaluation.calibration.pair_thresholds import SUPPORT_PAIRS
from evaluation.pairs.pairs import Pairs

USEFUL = 0.6  # a bound this tight leaves a threshold whose rate is this share of the target
ASSURED = 0.9  # share of samples of the planned size whose bound is that tight
PILOT_CLASSES = 5
PILOT_PAIRS = 10
MOST_CLASSES = 10_000_000


@dataclass(frozen=True)
class DataPlan:
    """What a target would need, at the pilot's number of items per class.

    Attributes:
        classes, items: least that supports the target and leaves at least ``USEFUL`` of it.
        least_classes: least that supports it at all.
        sentence: the answer in words.
    """

    classes: int
    items: int
    least_classes: int
    sentence: str


def plan(pilot: EmbeddingSet, target: Target, *, seed: int = 0, track: Track = silent) -> DataPlan:
    """How much data a ``far`` or ``fpir`` target needs, judged from a pilot sample.

    Raises:
        CalibrationRefused: the pilot is too small even for that, or the target has no rate to plan for.
    """
    if target.kind not in ("far", "fpir") or target.value is None:
        raise CalibrationRefused(f"A plan is for a FAR or an FPIR, the target is {target.kind}.")
    n_classes = len(pilot.classes)
    if n_classes < PILOT_CLASSES:
        raise CalibrationRefused(
            f"A pilot of {n_classes} classes tells nothing about classes: "
            f"at least {PILOT_CLASSES} are needed."
        )
    pairs = scored_pairs(pilot, CosineScorer())
    sized = _for_far if target.kind == "far" else _for_fpir
    supported, useful = sized(pairs, target, target.value, seed, track)
    least = _least(supported, LEAST_CLASSES)
    classes = _least(useful, least)
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
    """How far above its estimate the bound of a rate lies, for other numbers of classes.

    Args:
        shares: of the pilot, the first of them the rate itself.
        confidence: of the bound.
    """

    def __init__(self, shares: PairShares, confidence: float) -> None:
        self.shares = shares
        self.confidence = confidence
        self.rate = float(shares.values[0])

    def above(self, n: int, rate: float, gradient: Float64s) -> float:
        """Logarithm of bound over estimate that ``ASSURED`` of all samples of n classes stay below.

        Args:
            n: how many classes.
            rate: where the shares are counted; single pairs bring the more, the rarer they are.
            gradient: float [shares], of the logarithm, at the pilot's values.
        """
        shares, fewer = self.shares, self.shares.n / n
        by_class, by_pair = shares.variance(gradient)
        variance = by_class * fewer + by_pair * fewer**2 * self.rate / rate
        influence = 2 * (gradient @ shares.rows) * (shares.n - 1) / shares.total
        seen = float(influence @ influence)
        if not seen > 0 or not variance > 0:
            return 0.0
        kurtosis = shares.n * float((influence**4).sum()) / seen**2
        freedom = max(3.0, 2 * n / max(kurtosis - 1, 1e-9) * ((by_class + by_pair) / seen) ** 2)
        wide = math.exp(stats.norm.ppf(ASSURED) / math.sqrt(2 * freedom))  # of the error as it is estimated
        return float(stats.t.ppf(self.confidence, freedom) * wide * math.sqrt(variance))


Condition = Callable[[int], bool]


def _for_far(
    pairs: Pairs, target: Target, share: float, seed: int, track: Track
) -> tuple[Condition, Condition]:
    """Whether a number of classes supports the target at all, and whether usefully."""
    n_classes, each = len(pairs.classes), len(pairs.a) / len(pairs.classes)
    _, scores = sampled_rows(pairs, seed)
    drawn = -np.sort(-scores[np.isfinite(scores)])
    floor = max(share, PILOT_PAIRS / pairs.n_impostor)
    tail = collect(pairs, float(drawn[min(int(floor * len(drawn)), len(drawn) - 1)]), track)
    _enough(len(tail), pairs)
    sizes = pairs.a.sizes.astype(np.float64)
    matrix = class_matrix(*tail.codes, np.full(len(tail), 2.0), n_classes)
    shares = PairShares([matrix], sizes, sizes, resampled_classes(n_classes, seed, 1))
    spread, gradient = PilotSpread(shares, target.confidence), 1 / shares.values

    def supported(n: int) -> bool:
        rate = SUPPORT_PAIRS / (n * (n - 1) / 2 * each**2)
        return rate < share and spread.above(n, rate, gradient) <= math.log(share / rate)

    def useful(n: int) -> bool:
        return spread.above(n, USEFUL * share, gradient) <= math.log(1 / USEFUL)

    return supported, useful


def _for_fpir(
    pairs: Pairs, target: Target, share: float, seed: int, track: Track
) -> tuple[Condition, Condition]:
    """The same for an FPIR: by the match rate of one class, carried along its tail."""
    n_classes, each = len(pairs.classes), len(pairs.a) / len(pairs.classes)

    def allowed(n: int) -> float:
        gallery = target.gallery or GallerySize(items=round(n * each), classes=n)
        return plan_gallery(round(n * each), n, gallery).match_rate(share)

    collected = collect_unknown if target.aggregate == "nearest" else collect_trials
    trials = len(pairs.a) * (n_classes - 1)
    start = max(tail_rate(allowed(n_classes), n_classes), 2 * PILOT_PAIRS / trials)
    unknown = collected(pairs, start, seed=seed, track=track)
    _enough(len(unknown.tail), pairs)
    pilot = MatchTail(unknown, unknown.at(start), resampled_classes(n_classes, seed, 1))
    spread, values = PilotSpread(pilot.shares, target.confidence), pilot.shares.values
    pairs_per_trial = unknown.tail.accepted(pilot.start) / (values[0] * trials)

    def counted(n: int) -> float:
        """The match rate a tail of n classes would start from."""
        return tail_rate(allowed(n), n)

    def supported(n: int) -> bool:
        found = counted(n) * n * each * (n - 1) * pairs_per_trial
        fewer = spread.above(n, counted(n), np.array([1 / values[0], 0.0]))
        return bool(found * math.exp(-fewer) >= SUPPORT_PAIRS)

    def useful(n: int) -> bool:
        carried = math.log(counted(n) / (USEFUL * allowed(n)))
        gradient = np.array([1 - carried, carried]) / values
        return spread.above(n, counted(n), gradient) <= math.log(1 / USEFUL)

    return supported, useful


def _enough(alike: int, pairs: Pairs) -> None:
    if alike < PILOT_PAIRS:
        raise CalibrationRefused(
            f"The pilot's {pairs.n_impostor} impostor pairs hold fewer than {PILOT_PAIRS} alike; "
            "give a larger one."
        )


def _least(enough: Condition, start: int) -> int:
    """The least number of classes from ``start`` on that is enough; more is enough, too."""
    high = start
    while not enough(high):
        if high > MOST_CLASSES:
            raise CalibrationRefused(
                f"More than {MOST_CLASSES} classes would be needed; give a larger pilot, or a higher target."
            )
        high *= 2
    low = max(start - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
