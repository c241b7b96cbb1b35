"""Error rates of a threshold on one set of classes: rates, their bounds, and each class's own."""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import ClassRates, Evidence
from evaluation.calibration.bootstrap_bounds import Interval
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, collect_unknown, plan_gallery
from evaluation.calibration.match_rate_tail import fit_match_rate_tail
from evaluation.calibration.pair_thresholds import CalibrationSet
from evaluation.kernels.scalar_kernels import compute_utility

METHOD = (
    "upper bounds: classes resampled with replacement, no class its own impostor, pair noise counted once, "
    "BCa with t quantiles"
)


def measure_threshold(
    data: CalibrationSet, threshold: float, *, identification: bool = False, classes_disjoint: bool = False
) -> tuple[Evidence, list[ClassRates]]:
    """Evidence of a threshold on a set against itself, and the rates of each class.

    Rates over pairs, and those of each class, are not given where means of a class decide: nothing
    thresholds a pair then.

    Args:
        identification: also bound the FPIR at the set's own gallery, which takes a second pass.
        classes_disjoint: whether the threshold was chosen on other classes.
    """
    pairs, rule = data.pairs, SEARCH_RULES[data.target.aggregate]
    far, frr, method = None, None, METHOD
    per_class: list[ClassRates] = []
    if rule.is_of_pairs:
        far, frr, per_class = _measure_pairs(data, threshold)
    else:
        method = f"means over {len(pairs.a) / len(pairs.classes):.3g} items a class on average; {METHOD}"
    trials = data.scored.score_trials(rule)
    fpir, fnir = trials.measure_fpir(threshold), trials.measure_fnir(threshold)
    fpir_upper = None
    if identification and fpir is not None:
        fpir_upper = _bound_fpir(data, threshold)
        method += (
            f"; fpir: each class unknown to the {len(pairs.classes) - 1} others, bound along the tail of "
            f"{rule.scores_name}"
        )
    evidence = Evidence(
        n_items=len(pairs.a),
        n_classes=len(pairs.classes),
        n_genuine_pairs=pairs.n_genuine,
        n_impostor_pairs=pairs.n_impostor,
        far=None if far is None else far.estimate,
        far_upper=far.upper_bound if far is not None and far.estimate > 0 else None,
        frr=None if frr is None else frr.estimate,
        frr_upper=frr.upper_bound if frr is not None and frr.estimate > 0 else None,
        fpir=fpir,
        fpir_upper=fpir_upper,
        fnir=fnir,
        method=method,
        classes_disjoint=classes_disjoint,
    )
    return evidence, per_class


def _bound_fpir(data: CalibrationSet, threshold: float) -> float | None:
    """One-sided upper bound of the FPIR at a gallery of all other classes; null where too few pairs of
    items are alike to support one."""
    pairs, rule = data.pairs, SEARCH_RULES[data.target.aggregate]
    n, n_classes = len(pairs.a), len(pairs.classes)
    trials = data.scored.score_trials(rule)
    matched = trials.collect_above(threshold)
    rate = max(matched.compute_match_rate(threshold), 2 / (n * (n_classes - 1)))
    unknown = collect_unknown(trials, rule, rate)
    tail = fit_match_rate_tail(unknown, rate, data.weights, below=threshold)
    if tail is None:
        return None
    match_rate = tail.compute_interval(threshold, data.target.confidence).upper_bound
    return plan_gallery(n, n_classes, None).compute_fpir(match_rate) or None


def _measure_pairs(
    data: CalibrationSet, threshold: float
) -> tuple[Interval | None, Interval | None, list[ClassRates]]:
    """FAR, FRR, and the rates of each class."""
    pairs, totals = data.pairs, data.genuine.per_class
    matrix = data.scored.count_accepted(threshold)
    rejected = data.genuine.count_rejected(threshold)
    far = data.estimate_far_interval(matrix) if pairs.n_impostor else None
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
