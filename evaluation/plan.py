"""How many classes and items would a target need? Asked of a pilot sample, before collecting more.

The width of a class-resampled bound on log scale has two parts: what classes bring, which shrinks with
the number of classes, and what single pairs of classes bring, which shrinks with its square. Both are
measured on the pilot at the score where the target's rate is reached, and scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from api_schemas.errors import CalibrationRefused
from api_schemas.operating_point import Target
from decision.embeddings import EmbeddingSet
from decision.progress import Track, silent
from decision.score import CosineScorer
from evaluation.bounds import PairShares, class_matrix, resampled_classes
from evaluation.calibrate import LEAST_CLASSES
from evaluation.density import scored_pairs
from evaluation.identification_threshold import plan_gallery
from evaluation.pair_threshold import SUPPORT_PAIRS
from evaluation.tails import collect, sampled_rows

USEFUL = 0.6  # a bound this tight leaves a threshold whose rate is this share of the target
PILOT_CLASSES = 5
PILOT_PAIRS = 10


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
    each = len(pilot) / n_classes
    share = target.value
    if target.kind == "fpir":
        gallery = plan_gallery(len(pilot), n_classes, target.gallery)
        # A query meets every item of a class; where matches are rare, their rates add up.
        share = gallery.match_rate(share) / each
    _, scores = sampled_rows(pairs, seed)
    drawn = -np.sort(-scores[np.isfinite(scores)])
    floor = max(share, PILOT_PAIRS / pairs.n_impostor)
    tail = collect(pairs, float(drawn[min(int(floor * len(drawn)), len(drawn) - 1)]), track)
    if len(tail) < PILOT_PAIRS:
        raise CalibrationRefused(
            f"The pilot's {pairs.n_impostor} impostor pairs hold fewer than {PILOT_PAIRS} alike; "
            "give a larger one."
        )
    first, second = tail.codes
    sizes = pairs.a.sizes.astype(np.float64)
    matrix = class_matrix(first, second, np.full(len(first), 2.0), n_classes)
    found = PairShares([matrix], sizes, sizes, resampled_classes(n_classes, seed, 1))
    by_class, by_pair = found.variance(1 / found.values)
    by_class *= n_classes
    by_pair *= n_classes**2 * max(1.0, floor / share)
    wanted = (math.log(1 / USEFUL) / stats.norm.ppf(target.confidence)) ** 2
    for_bound = (by_class + math.sqrt(by_class**2 + 4 * wanted * by_pair)) / (2 * wanted)
    needed_pairs = SUPPORT_PAIRS / (USEFUL * share * each**2)
    least = max(LEAST_CLASSES, math.ceil((1 + math.sqrt(1 + 8 * needed_pairs)) / 2))
    classes = max(least, math.ceil(for_bound))
    items = math.ceil(classes * each)
    return DataPlan(
        classes,
        items,
        least,
        f"{target.kind} {target.value:g} at {target.confidence:g} confidence: about {classes} classes of "
        f"{each:.3g} items ({items} items) give a threshold with at least {USEFUL:.0%} of the target; below "
        f"{least} classes it is refused; the pilot has {n_classes}.",
    )
