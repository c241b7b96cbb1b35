"""Error rates of a threshold on one set of classes: rates, their bounds and intervals, each class's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from api_schemas.operating_point import ClassRates, Evidence, UnknownRates
from api_schemas.operating_point import Interval as Ends
from common.array_types import Float64s, Int64s
from decision.scorers import accepts
from evaluation.calibration.bootstrap_bounds import Interval, estimate_class_fraction_interval
from evaluation.calibration.estimates.fpir_estimate import FpirEstimate, resample_queries
from evaluation.calibration.estimates.impostor_rate import RESAMPLED
from evaluation.calibration.fpir_thresholds import GalleryPlan, collect_unknown, get_search_rule, plan_gallery
from evaluation.calibration.match_rate_tail import fit_match_rate_tail
from evaluation.calibration.pair_thresholds import CalibrationSet
from evaluation.calibration.sets.search_trials import SearchTrials, split_search
from evaluation.calibration.trials import Trials
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.class_bootstrap import draw_classes

METHOD = (
    "upper bounds: classes resampled with replacement, no class its own impostor, pair noise counted once, "
    "BCa with t quantiles"
)
SAME_SIZE = 0.1  # of classes; a gallery that differs by less is the set's own, where FPIR is counted


@dataclass(frozen=True)
class Identification:
    """FPIR and FNIR of a threshold with their intervals; None where there is nothing to count."""

    fpir: float | None
    fnir: float | None
    fpir_interval: Interval | None
    fnir_interval: Interval | None
    method: str


def measure_threshold(
    data: CalibrationSet,
    threshold: float,
    *,
    identification: bool = False,
    classes_disjoint: bool = False,
    search: SearchTrials | None = None,
) -> tuple[Evidence, list[ClassRates]]:
    """Evidence of a threshold on a set against itself, and the rates of each class.

    Rates over pairs, and those of each class, are not given where whole classes decide: nothing
    thresholds a pair then.

    Args:
        identification: also the bound and the interval of the FPIR, at the gallery of the target.
        classes_disjoint: whether the threshold was chosen on other classes.
        search: the trials, where others than those of the set are unknown.
    """
    pairs, rule = data.pairs, get_search_rule(data.target)
    far, frr, method = None, None, METHOD
    per_class: list[ClassRates] = []
    if rule.is_of_pairs:
        far, frr, per_class = _measure_pairs(data, threshold)
    else:
        each = len(pairs.a) / len(pairs.classes)
        method = f"{rule.description}, {each:.3g} items a class on average; {METHOD}"
    search = search or split_search(data.scored.score_trials(rule), None, None)
    found = measure_search(data, search, threshold, intervals=identification)
    fpir_upper = None if found.fpir_interval is None else found.fpir_interval.upper_bound
    evidence = Evidence(
        n_items=len(pairs.a),
        n_classes=len(pairs.classes),
        n_genuine_pairs=pairs.n_genuine,
        n_impostor_pairs=pairs.n_impostor,
        far=None if far is None else far.estimate,
        far_upper=far.upper_bound if far is not None and far.estimate > 0 else None,
        frr=None if frr is None else frr.estimate,
        frr_upper=frr.upper_bound if frr is not None and frr.estimate > 0 else None,
        fpir=found.fpir,
        fpir_upper=fpir_upper,
        fnir=found.fnir,
        method=method + found.method,
        classes_disjoint=classes_disjoint,
        far_ci=get_ends(far),
        frr_ci=get_ends(frr),
        fpir_ci=get_ends(found.fpir_interval),
        fnir_ci=get_ends(found.fnir_interval),
    )
    return evidence, per_class


def get_ends(interval: Interval | None) -> Ends | None:
    """The two-sided interval, as documents hold it; none where nothing was seen."""
    if interval is None or interval.estimate <= 0:
        return None
    return interval.lower, interval.upper


def measure_search(
    data: CalibrationSet, search: SearchTrials, threshold: float, *, intervals: bool
) -> Identification:
    """FPIR and FNIR, counted at the set's own gallery; extended to that of the target where it differs."""
    plan = plan_gallery(search.known.gallery_items, search.known.n_classes, data.target.gallery)
    fpir, method = search.unknown.measure_fpir(threshold), ""
    fnir = search.known.measure_fnir(threshold)
    if not intervals or fpir is None:
        return Identification(fpir, fnir, None, measure_fnir_interval(data, search.known, threshold), "")
    is_own = (
        abs(plan.wanted.classes / search.known.n_classes - 1) <= SAME_SIZE
        and abs(plan.wanted.items / search.known.gallery_items - 1) <= 3 * SAME_SIZE
    )
    estimate = FpirEstimate(search.unknown, search.pool, plan.power)
    around = estimate.compute_interval(threshold, data.target.confidence)
    value = fpir if is_own else around.estimate
    upper = _bound_fpir(data, search, threshold, plan)
    if upper is None:
        upper = around.upper_bound
    else:
        rule = get_search_rule(data.target)
        who = (
            "" if search.has_strangers else f"each class unknown to the {search.known.n_classes - 1} others, "
        )
        method = f"; fpir: {who}bound along the tail of {rule.scores_name}"
    if not is_own:
        method += f"; fpir estimated for a gallery of {plan.wanted.classes} classes"
    interval = Interval.around(value, around.lower, around.upper, upper)
    return Identification(value, fnir, interval, measure_fnir_interval(data, search.known, threshold), method)


def measure_fnir_interval(data: CalibrationSet, known: Trials, threshold: float) -> Interval | None:
    """The FNIR over newly sampled classes."""
    rows = known.is_known
    if not rows.any():
        return None
    missed = ~accepts(known.decisive[rows], threshold)
    return count_by_class(missed.astype(np.float64), known.codes[rows], data.target.confidence)


def count_by_class(events: Float64s, codes: Int64s, confidence: float) -> Interval:
    """A fraction of queries with its interval from resampling their classes."""
    groups = np.unique(codes, return_inverse=True)[1]
    sums, totals = (
        np.bincount(groups, values).astype(np.float64) for values in (events, np.ones(len(events)))
    )
    return estimate_class_fraction_interval(sums, totals, draw_classes(len(sums), 0), confidence)


def measure_unknown(strangers: Trials, threshold: float, confidence: float) -> UnknownRates:
    """FPIR of real unknown queries."""
    events = accepts(strangers.best_other, threshold).astype(np.float64)
    interval = resample_queries(events, strangers, confidence)
    seen = interval.estimate > 0
    return UnknownRates(
        n_queries=len(events),
        fpir=interval.estimate,
        fpir_ci=(interval.lower, interval.upper) if seen else None,
        fpir_upper=interval.upper_bound if seen else -float(np.expm1(np.log1p(-confidence) / len(events))),
    )


def _bound_fpir(
    data: CalibrationSet, search: SearchTrials, threshold: float, plan: GalleryPlan
) -> float | None:
    """One-sided upper bound of the FPIR; None where too few trials are alike to support one."""
    if search.has_strangers or search.pool.n_classes < RESAMPLED:
        return None
    rule = get_search_rule(data.target)
    trials = search.pool
    matched = trials.collect_above(threshold)
    rate = max(matched.compute_match_rate(threshold), 2 / trials.n_trials)
    unknown = collect_unknown(trials, rule, rate)
    tail = fit_match_rate_tail(unknown, rate, data.weights, below=threshold)
    if tail is None:
        return None
    match_rate = tail.compute_interval(threshold, data.target.confidence).upper_bound
    return plan.compute_fpir(match_rate) or None


def _measure_pairs(
    data: CalibrationSet, threshold: float
) -> tuple[Interval | None, Interval | None, list[ClassRates]]:
    """FAR, FRR, and the rates of each class."""
    pairs, totals = data.pairs, data.genuine.per_class
    matrix = data.scored.count_accepted(threshold)
    rejected = data.genuine.count_rejected(threshold)
    far = _estimate_far(data, matrix) if pairs.n_impostor else None
    frr = data.estimate_frr_interval(rejected) if totals.sum() else None
    accepted = np.asarray(matrix.sum(axis=1)).ravel()
    rates = []
    for code, label in enumerate(pairs.classes):
        impostors = int(pairs.impostor_per_class[code])
        own_far = float(accepted[code] / impostors) if impostors else None
        own_frr = float(rejected[code] / totals[code]) if totals[code] else None
        utility = None
        if own_far is not None and own_frr is not None:
            utility = float(compute_utility(1 - own_far, 1 - own_frr, 1.0))
        size = int(pairs.a.sizes[code])
        rates.append(ClassRates(label=str(label), n_items=size, far=own_far, frr=own_frr, utility=utility))
    return far, frr, rates


def _estimate_far(data: CalibrationSet, accepted: Any) -> Interval:
    """The FAR with its interval; one that says nothing where there are too few classes to resample."""
    if len(data.pairs.classes) < RESAMPLED:
        return Interval(float(accepted.sum() / 2 / data.pairs.n_impostor), 0.0, 1.0, 1.0)
    return data.estimate_far_interval(accepted)
