"""The threshold that each kind of target leads to on one set of pairs."""

from __future__ import annotations

from dataclasses import dataclass

from api_schemas.operating_point import Target
from common.array_types import Float64s
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.fpir_thresholds import fpir_threshold, plan_gallery
from evaluation.calibration.pair_thresholds import (
    Genuine,
    equal_error_threshold,
    error_curves,
    far_threshold,
    frr_threshold,
    least_cost_threshold,
)
from evaluation.pairs.pairs import Pairs

RULES = {"nearest": "the nearest item of a class", "mean_of_class": "the mean over a class's items"}


@dataclass(frozen=True)
class Chosen:
    """A threshold, the target with what was reached, and the FPIR it was chosen by."""

    threshold: float
    target: Target
    fpir: Interval | None
    method: str


def choose(
    pairs: Pairs, genuine: Genuine, target: Target, weights: Float64s, *, seed: int = 0, track: Track = silent
) -> Chosen:
    """The threshold for a target on one set of pairs; see ``calibrate``."""
    value, confidence = target.value, target.confidence
    if target.kind == "fpir":
        assert value is not None
        plan = plan_gallery(len(pairs.a), len(pairs.classes), target.gallery)
        threshold, reached = fpir_threshold(
            pairs, value, plan, confidence, weights, aggregate=target.aggregate, seed=seed, track=track
        )
        settled = target.model_copy(update={"gallery": plan.wanted})
        return Chosen(
            threshold,
            settled,
            reached,
            f"fpir by {RULES[target.aggregate]}: each class unknown to the others, for {plan.describe()}",
        )
    if target.kind == "far":
        assert value is not None
        threshold = far_threshold(pairs, value, confidence, weights, seed=seed, track=track)
        return Chosen(threshold, target, None, "far: all impostor pairs")
    if not len(genuine.scores):
        raise CalibrationRefused(
            f"No class has two items, so nothing is known about genuine pairs: {target.kind} needs some."
        )
    if target.kind == "frr":
        assert value is not None
        return Chosen(
            frr_threshold(genuine, value, confidence, weights), target, None, "frr: all genuine pairs"
        )
    thresholds, far, frr = error_curves(pairs, genuine, track)
    if target.kind == "eer":
        return Chosen(equal_error_threshold(thresholds, far, frr), target, None, "eer: where FAR equals FRR")
    given = target.cost_parameters or {}
    missing = {"cost_false_match", "cost_false_non_match", "prior"} - set(given)
    if missing:
        raise InputError(f"A cost target needs {', '.join(sorted(missing))}.")
    threshold, cost = least_cost_threshold(
        thresholds,
        far,
        frr,
        false_match=given["cost_false_match"],
        false_non_match=given["cost_false_non_match"],
        prior=given["prior"],
    )
    return Chosen(threshold, target.model_copy(update={"value": cost}), None, "cost: least expected cost")
