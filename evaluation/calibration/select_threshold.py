"""The threshold that each kind of target leads to on one set of pairs, by a bound or by a best estimate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from api_schemas.operating_point import Status, Target
from common.array_types import Float32s, Float64s
from common.errors import CalibrationRefused, InputError
from decision.scorers import accepts
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.estimates.fpir_estimate import FpirEstimate, resample_queries
from evaluation.calibration.estimates.pair_estimates import estimate_far_threshold, estimate_frr_threshold
from evaluation.calibration.fpir_thresholds import (
    GalleryPlan,
    find_fpir_threshold,
    get_search_rule,
    plan_gallery,
)
from evaluation.calibration.pair_thresholds import (
    MIN_CLASSES,
    MIN_PAIRS,
    CalibrationSet,
    compute_error_curves,
    find_far_threshold,
    find_frr_threshold,
    find_last_true,
    find_support,
)
from evaluation.calibration.sets.search_trials import SearchTrials, split_search
from evaluation.calibration.sets.sources import LEAST_CLASSES
from evaluation.calibration.trials import Trials

COSTS = ("cost_false_match", "cost_false_non_match", "prior")


@dataclass(frozen=True)
class SelectedThreshold:
    """A threshold, the target with what was reached, and the rate it was selected by (FAR, FRR or FPIR).

    ``status`` is ``proven`` where the rate's upper bound meets the target, else ``estimated``.
    """

    threshold: float
    target: Target
    reached: Interval | None
    method: str
    status: Status

    @property
    def fpir(self) -> Interval | None:
        """The FPIR it was selected by."""
        return self.reached if self.target.kind == "fpir" else None


def select_threshold(
    data: CalibrationSet, status: Status = "proven", search: SearchTrials | None = None
) -> SelectedThreshold:
    """The threshold for a target on one set of pairs, proven or estimated; see ``calibrate_threshold``.

    ``search``: the trials of an ``fpir`` target, where other queries than those of the set are unknown.
    """
    target, is_proven = data.target, status == "proven"
    if is_proven and target.kind in ("far", "fpir", "frr"):
        _check_classes(len(data.pairs.classes))
    if target.kind == "fpir":
        return _select_for_search(data, search, is_proven)
    if target.kind == "far":
        if is_proven:
            found = find_far_threshold(data)
            return SelectedThreshold(found, target, None, "far: all impostor pairs", "proven")
        threshold, far = estimate_far_threshold(data)
        return SelectedThreshold(
            threshold, target, far, "far: best estimate, along the tail of pairs", "estimated"
        )
    if not len(data.genuine.scores):
        raise CalibrationRefused(
            f"No class has two items, so nothing is known about genuine pairs: {target.kind} needs some."
        )
    if target.kind == "frr":
        if is_proven:
            return SelectedThreshold(
                find_frr_threshold(data), target, None, "frr: all genuine pairs", "proven"
            )
        threshold, frr = estimate_frr_threshold(data)
        return SelectedThreshold(threshold, target, frr, "frr: best estimate, counted", "estimated")
    thresholds, far_curve, frr_curve = compute_error_curves(data)
    if target.kind == "eer":
        lowest = int(np.argmin(np.abs(far_curve - frr_curve)))
        return SelectedThreshold(
            float(thresholds[lowest]), target, None, "eer: where FAR equals FRR", "estimated"
        )
    given = target.cost_parameters or {}
    missing = set(COSTS) - set(given)
    if missing:
        raise InputError(f"A cost target needs {', '.join(sorted(missing))}.")
    false_match, false_non_match, prior = (given[name] for name in COSTS)
    cost = (1 - prior) * false_match * far_curve + prior * false_non_match * frr_curve
    lowest = int(np.argmin(cost))
    reached_target = target.model_copy(update={"value": float(cost[lowest])})
    return SelectedThreshold(
        float(thresholds[lowest]), reached_target, None, "cost: least expected cost", "estimated"
    )


def _select_for_search(
    data: CalibrationSet, search: SearchTrials | None, is_proven: bool
) -> SelectedThreshold:
    target, rule = data.target, get_search_rule(data.target)
    search = search or split_search(data.scored.score_trials(rule), None, None)
    plan = plan_gallery(search.known.gallery_items, search.known.n_classes, target.gallery)
    own = target.model_copy(update={"gallery": plan.wanted})
    method = f"fpir by {rule.description}: "
    if not search.has_strangers:
        method += "each class unknown to the others, for "
    estimate = FpirEstimate(search.unknown, search.pool, plan.power)
    if not is_proven:
        threshold = estimate.find_threshold(data.rate)
        reached = estimate.compute_interval(threshold, target.confidence)
        size = f"a gallery of {plan.wanted.items} items of {plan.wanted.classes} classes"
        method += f"{size}: best estimate, along the tail of {rule.scores_name}"
        return SelectedThreshold(threshold, own, reached, method, "estimated")
    if search.has_strangers:
        threshold, reached = find_threshold_for_strangers(search.unknown, plan, data.rate, target.confidence)
        method += f"bound over {len(search.unknown)} unknown queries against this gallery, "
        return SelectedThreshold(threshold, own, reached, method + "resampling their classes", "proven")
    threshold, bound = find_fpir_threshold(data, plan)
    around = estimate.compute_interval(threshold, target.confidence)
    value = min(around.estimate, bound.upper_bound)
    reached = Interval.around(value, around.lower, bound.upper, bound.upper_bound)
    return SelectedThreshold(threshold, own, reached, method + plan.describe(), "proven")


def find_threshold_for_strangers(
    strangers: Trials, plan: GalleryPlan, fpir: float, confidence: float
) -> tuple[float, Interval]:
    """The lowest threshold at which unknown queries meet a FPIR in the gallery itself, by its bound.

    Raises:
        CalibrationRefused: too few queries or classes match to support a bound, or the gallery is another.
    """
    growth = max(1.0, plan.power / strangers.n_classes)
    rate = float(-np.expm1(np.log1p(-fpir) / growth))
    order = np.argsort(-strangers.best_other, kind="stable")
    scores: Float32s = strangers.best_other[order]
    groups = strangers.groups[order]
    if len(np.unique(groups)) == len(groups):
        return _find_for_independent(scores, rate, growth, confidence)
    few = len(np.unique(groups)) < MIN_CLASSES
    groups = np.arange(len(groups)) if few else groups
    supported = find_support(groups, groups)
    last = np.flatnonzero(np.diff(scores, append=np.float32(-np.inf)))

    def bound(position: int) -> Interval:
        events: Float64s = accepts(strangers.best_other, float(scores[last[position]])).astype(np.float64)
        return resample_queries(events, strangers, confidence)

    low = len(last) if supported is None else int(np.searchsorted(last, supported))
    if low >= len(last) or bound(low).upper_bound > rate:
        raise CalibrationRefused(
            f"FPIR <= {fpir:g} cannot be proven with {len(strangers)} unknown queries of "
            f"{len(np.unique(strangers.groups))} classes: at least {MIN_PAIRS} matched queries of "
            f"{MIN_CLASSES} classes must lie within the bound, which takes about "
            f"{2 * MIN_PAIRS / rate:.0f} queries; give more, or a higher target."
        )
    position = find_last_true(lambda k: bound(k).upper_bound <= rate, low, len(last))
    return float(scores[last[position]]), bound(position).transform(lambda value: _grow(value, growth))


def _find_for_independent(
    scores: Float32s, rate: float, growth: float, confidence: float
) -> tuple[float, Interval]:
    """The lowest threshold at which independent queries meet a rate, by the exact binomial bound.

    ``scores``: best scores of the queries, highest first (Clopper & Pearson 1934).
    """
    n = len(scores)
    counts = np.arange(n)
    allowed = int(np.count_nonzero(betaincinv(counts + 1, n - counts, confidence) <= rate)) - 1
    if allowed < 0:
        needed = int(np.ceil(np.log1p(-confidence) / np.log1p(-rate)))
        raise CalibrationRefused(
            f"FPIR <= {_grow(rate, growth):g} cannot be proven with {n} unknown queries: none of about "
            f"{needed:,} may be matched; give more, or a higher target."
        )
    reached = int(np.count_nonzero(scores > scores[allowed]))  # ties are matched together
    threshold = float(np.nextafter(scores[allowed], np.float32(np.inf)))
    tails = ((1 - confidence) / 2, (1 + confidence) / 2, confidence)
    lower = float(betaincinv(reached, n - reached + 1, tails[0])) if reached else 0.0
    upper, upper_bound = (float(betaincinv(reached + 1, n - reached, tail)) for tail in tails[1:])
    found = Interval.around(reached / n, lower, upper, upper_bound)
    return threshold, found.transform(lambda value: _grow(value, growth))


def _grow(value: float, growth: float) -> float:
    """The FPIR of a gallery of ``growth`` times as many classes (Jensen's upper bound)."""
    return float(-np.expm1(growth * np.log1p(-min(value, 1 - 1e-12))))


def _check_classes(n: int) -> None:
    if n < LEAST_CLASSES:
        raise CalibrationRefused(
            f"{n} class{'es are' if n != 1 else ' is'} too few to prove a threshold on: a bound over classes "
            f"needs at least {LEAST_CLASSES}; give more classes, or take the estimate."
        )
