"""The threshold that each kind of target leads to on one set of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api_schemas.operating_point import Target
from common.errors import CalibrationRefused, InputError
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, find_fpir_threshold, plan_gallery
from evaluation.calibration.pair_thresholds import (
    CalibrationSet,
    compute_error_curves,
    find_far_threshold,
    find_frr_threshold,
)

COSTS = ("cost_false_match", "cost_false_non_match", "prior")


@dataclass(frozen=True)
class SelectedThreshold:
    """A threshold, the target with what was reached, and the FPIR it was selected by."""

    threshold: float
    target: Target
    fpir: Interval | None
    method: str


def select_threshold(data: CalibrationSet) -> SelectedThreshold:
    """The threshold for a target on one set of pairs; see ``calibrate_threshold``."""
    target = data.target
    if target.kind == "fpir":
        plan = plan_gallery(len(data.pairs.a), len(data.pairs.classes), target.gallery)
        threshold, reached = find_fpir_threshold(data, plan)
        rule = SEARCH_RULES[target.aggregate].description
        method = f"fpir by {rule}: each class unknown to the others, for {plan.describe()}"
        own = target.model_copy(update={"gallery": plan.wanted})
        return SelectedThreshold(threshold, own, reached, method)
    if target.kind == "far":
        return SelectedThreshold(find_far_threshold(data), target, None, "far: all impostor pairs")
    if not len(data.genuine.scores):
        raise CalibrationRefused(
            f"No class has two items, so nothing is known about genuine pairs: {target.kind} needs some."
        )
    if target.kind == "frr":
        return SelectedThreshold(find_frr_threshold(data), target, None, "frr: all genuine pairs")
    thresholds, far, frr = compute_error_curves(data)
    if target.kind == "eer":
        lowest = int(np.argmin(np.abs(far - frr)))
        return SelectedThreshold(float(thresholds[lowest]), target, None, "eer: where FAR equals FRR")
    given = target.cost_parameters or {}
    missing = set(COSTS) - set(given)
    if missing:
        raise InputError(f"A cost target needs {', '.join(sorted(missing))}.")
    false_match, false_non_match, prior = (given[name] for name in COSTS)
    cost = (1 - prior) * false_match * far + prior * false_non_match * frr
    lowest = int(np.argmin(cost))
    reached_target = target.model_copy(update={"value": float(cost[lowest])})
    return SelectedThreshold(float(thresholds[lowest]), reached_target, None, "cost: least expected cost")
