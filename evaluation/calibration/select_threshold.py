"""The threshold that each kind of target leads to on one set of pairs."""

from __future__ import annotations

from dataclasses import dataclass

from api_schemas.operating_point import Target
from common.array_types import Float64s
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, find_fpir_threshold, plan_gallery
from evaluation.calibration.pair_thresholds import (
    GenuineScores,
    compute_error_curves,
    find_equal_error_threshold,
    find_far_threshold,
    find_frr_threshold,
    find_least_cost_threshold,
)
from evaluation.pairs.pairs import Pairs

COSTS = ("cost_false_match", "cost_false_non_match", "prior")


@dataclass(frozen=True)
class SelectedThreshold:
    """A threshold, the target with what was reached, and the FPIR it was selected by."""

    threshold: float
    target: Target
    fpir: Interval | None
    method: str


def select_threshold(
    pairs: Pairs,
    genuine: GenuineScores,
    target: Target,
    weights: Float64s,
    *,
    seed: int = 0,
    track: Track = silent,
) -> SelectedThreshold:
    """The threshold for a target on one set of pairs; see ``calibrate_threshold``."""
    value, confidence = target.value, target.confidence
    if target.kind == "fpir":
        assert value is not None
        plan = plan_gallery(len(pairs.a), len(pairs.classes), target.gallery)
        threshold, reached = find_fpir_threshold(
            pairs, value, plan, confidence, weights, aggregate=target.aggregate, seed=seed, track=track
        )
        rule = SEARCH_RULES[target.aggregate].description
        return SelectedThreshold(
            threshold,
            target.model_copy(update={"gallery": plan.wanted}),
            reached,
            f"fpir by {rule}: each class unknown to the others, for {plan.describe()}",
        )
    if target.kind == "far":
        assert value is not None
        threshold = find_far_threshold(pairs, value, confidence, weights, seed=seed, track=track)
        return SelectedThreshold(threshold, target, None, "far: all impostor pairs")
    if not len(genuine.scores):
        raise CalibrationRefused(
            f"No class has two items, so nothing is known about genuine pairs: {target.kind} needs some."
        )
    if target.kind == "frr":
        assert value is not None
        threshold = find_frr_threshold(genuine, value, confidence, weights)
        return SelectedThreshold(threshold, target, None, "frr: all genuine pairs")
    thresholds, far, frr = compute_error_curves(pairs, genuine, track)
    if target.kind == "eer":
        threshold = find_equal_error_threshold(thresholds, far, frr)
        return SelectedThreshold(threshold, target, None, "eer: where FAR equals FRR")
    given = target.cost_parameters or {}
    missing = set(COSTS) - set(given)
    if missing:
        raise InputError(f"A cost target needs {', '.join(sorted(missing))}.")
    false_match, false_non_match, prior = (given[name] for name in COSTS)
    threshold, cost = find_least_cost_threshold(
        thresholds, far, frr, false_match=false_match, false_non_match=false_non_match, prior=prior
    )
    reached_target = target.model_copy(update={"value": cost})
    return SelectedThreshold(threshold, reached_target, None, "cost: least expected cost")
