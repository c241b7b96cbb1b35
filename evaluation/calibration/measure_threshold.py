"""What a threshold does on one set of classes: rates, their bounds, and each class's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from api_schemas.operating_point import Aggregate, ClassRates, Evidence
from common.array_types import Float32s, Float64s
from common.progress import Track, silent
from decision.scorers import accepts
from evaluation.calibration.bootstrap_bounds import Interval, bound_class_fraction, bound_pair_fraction
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, plan_gallery
from evaluation.calibration.impostor_scores import count_accepted_pairs
from evaluation.calibration.match_rate_tail import fit_match_rate_tail
from evaluation.calibration.pair_thresholds import GenuineScores, score_genuine_pairs
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.pairs.pairs import Pairs

METHOD = (
    "upper bounds: classes resampled with replacement, no class its own impostor, pair noise counted once, "
    "BCa with t quantiles"
)


@dataclass(frozen=True)
class ThresholdMeasurement:
    """Evidence, and the rates of each class."""

    evidence: Evidence
    per_class: list[ClassRates]


def measure_threshold(
    pairs: Pairs,
    threshold: float,
    confidence: float,
    weights: Float64s,
    *,
    identification: bool,
    classes_disjoint: bool,
    genuine: GenuineScores | None = None,
    aggregate: Aggregate = "nearest",
    seed: int = 0,
    track: Track = silent,
) -> ThresholdMeasurement:
    """Measure a threshold on a set against itself.

    Args:
        identification: also bound the FPIR at the set's own gallery, which takes a second pass.
        classes_disjoint: whether the threshold was chosen on other classes.
        aggregate: how several items of a class make one score. Rates over pairs, and those of each class,
            are given for the nearest alone: nothing thresholds a pair where means decide.
    """
    rule = SEARCH_RULES[aggregate]
    far, frr, method = None, None, METHOD
    per_class: list[ClassRates] = []
    if rule.is_of_pairs:
        far, frr, per_class = _measure_pairs(pairs, threshold, confidence, weights, genuine, track)
    else:
        method = f"means over {len(pairs.a) / len(pairs.classes):.3g} items a class on average; {METHOD}"
    fpir, fnir = _measure_identification(rule.compute_best(pairs, track), threshold)
    fpir_upper = None
    if identification and fpir is not None:
        fpir_upper = bound_fpir(
            pairs, threshold, confidence, weights, aggregate=aggregate, seed=seed, track=track
        )
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
        far_upper=far.bound if far is not None and far.estimate > 0 else None,
        frr=None if frr is None else frr.estimate,
        frr_upper=frr.bound if frr is not None and frr.estimate > 0 else None,
        fpir=fpir,
        fpir_upper=fpir_upper,
        fnir=fnir,
        method=method,
        classes_disjoint=classes_disjoint,
    )
    return ThresholdMeasurement(evidence, per_class)


def bound_fpir(
    pairs: Pairs,
    threshold: float,
    confidence: float,
    weights: Float64s,
    *,
    aggregate: Aggregate = "nearest",
    seed: int,
    track: Track = silent,
) -> float | None:
    """One-sided upper bound of the FPIR at a gallery of all other classes; null where too few pairs of
    items are alike to support one."""
    rule = SEARCH_RULES[aggregate]
    n, n_classes = len(pairs.a), len(pairs.classes)
    matched = rule.collect_above(pairs, threshold, track)
    rate = max(matched.compute_match_rate(threshold), 2 / (n * (n_classes - 1)))
    unknown = rule.collect(pairs, rule.compute_start_rate(rate, n_classes), seed, track)
    tail = fit_match_rate_tail(unknown, rate, weights, below=threshold)
    if tail is None:
        return None
    bound = plan_gallery(n, n_classes, None).compute_fpir(tail.compute_interval(threshold, confidence).bound)
    return bound if bound > 0 else None


def _measure_pairs(
    pairs: Pairs,
    threshold: float,
    confidence: float,
    weights: Float64s,
    genuine: GenuineScores | None,
    track: Track,
) -> tuple[Interval | None, Interval | None, list[ClassRates]]:
    """FAR, FRR, and the rates of each class."""
    genuine = score_genuine_pairs(pairs) if genuine is None else genuine
    accepted = count_accepted_pairs(pairs, threshold, track)
    rejected = genuine.count_rejected(threshold)
    sizes = pairs.a.sizes.astype(np.float64)
    totals = genuine.per_class.astype(np.float64)
    far = bound_pair_fraction(accepted, sizes, weights, confidence) if pairs.n_impostor else None
    frr = bound_class_fraction(rejected, totals, weights, confidence) if totals.sum() else None
    return far, frr, _build_class_rates(pairs, accepted, rejected, totals)


def _measure_identification(
    best: tuple[Float32s, Float32s], threshold: float
) -> tuple[float | None, float | None]:
    """FPIR and FNIR; a known query whose class ties with another is missed."""
    same, other = best
    fpir = float(np.mean(accepts(other, threshold))) if np.isfinite(other).any() else None
    known = np.isfinite(same)
    if not known.any():
        return fpir, None
    missed = ~accepts(same[known], threshold) | (same[known] <= other[known])
    return fpir, float(missed.mean())


def _build_class_rates(pairs: Pairs, matrix: Any, rejected: Float64s, totals: Float64s) -> list[ClassRates]:
    accepted = np.asarray(matrix.sum(axis=1)).ravel()
    rates = []
    for code, label in enumerate(pairs.classes):
        impostors = int(pairs.impostor_per_class[code])
        far = float(accepted[code] / impostors) if impostors else None
        frr = float(rejected[code] / totals[code]) if totals[code] else None
        rates.append(
            ClassRates(
                label=str(label),
                n_items=int(pairs.a.sizes[code]),
                far=far,
                frr=frr,
                utility=None if far is None or frr is None else float(compute_utility(1 - far, 1 - frr, 1.0)),
            )
        )
    return rates
