"""What a threshold does on one set of classes: rates, their bounds, and each class's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from api_schemas.operating_point import Aggregate, ClassRates, Evidence
from common.array_types import Float32s, Float64s
from common.progress import Track, silent
from evaluation.calibration.bootstrap_bounds import class_share, pair_share
from evaluation.calibration.class_mean_scores import best_means, collect_trials, trials_above
from evaluation.calibration.fpir_thresholds import known_queries_missed, plan_gallery
from evaluation.calibration.impostor_tail import accepted_pairs, collect
from evaluation.calibration.match_rate_tail import collect_unknown, match_tail, tail_rate, unknown_queries
from evaluation.calibration.pair_thresholds import Genuine, genuine_pairs
from evaluation.pairs.pairs import Pairs

METHOD = (
    "upper bounds: classes resampled with replacement, no class its own impostor, pair noise counted once, "
    "BCa with t quantiles"
)


@dataclass(frozen=True)
class Measured:
    """Evidence, and the rates of each class."""

    evidence: Evidence
    per_class: list[ClassRates]


def measure(
    pairs: Pairs,
    threshold: float,
    confidence: float,
    weights: Float64s,
    *,
    identification: bool,
    classes_disjoint: bool,
    genuine: Genuine | None = None,
    aggregate: Aggregate = "nearest",
    seed: int = 0,
    track: Track = silent,
) -> Measured:
    """Measure a threshold on a set against itself.

    Args:
        identification: also bound the FPIR at the set's own gallery, which takes a second pass.
        classes_disjoint: whether the threshold was chosen on other classes.
        aggregate: how several items of a class make one score. Rates over pairs, and those of each class,
            are given for the nearest alone: nothing thresholds a pair where means decide.
    """
    if aggregate != "nearest":
        return _measured_means(
            pairs, threshold, confidence, weights, identification, classes_disjoint, seed, track
        )
    genuine = genuine_pairs(pairs) if genuine is None else genuine
    matrix = accepted_pairs(pairs, threshold, track)
    rejected = genuine.rejected(threshold)
    sizes = pairs.a.sizes.astype(np.float64)
    totals = genuine.per_class.astype(np.float64)
    far = pair_share(matrix, sizes, weights, confidence) if pairs.n_impostor else None
    frr = class_share(rejected, totals, weights, confidence) if totals.sum() else None
    fpir, fnir = _identification(best_scores(pairs), threshold)
    fpir_upper, how = None, ""
    if identification and fpir is not None:
        fpir_upper = fpir_bound(pairs, threshold, confidence, weights, seed=seed, track=track)
        how = f"; {_left_out(pairs)} of best scores"
    return Measured(
        Evidence(
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
            method=METHOD + how,
            classes_disjoint=classes_disjoint,
        ),
        _class_rates(pairs, matrix, rejected, totals),
    )


def fpir_bound(
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
    n, n_classes = len(pairs.a), len(pairs.classes)
    nearest = aggregate == "nearest"
    matched = (
        unknown_queries(collect(pairs, threshold, track))
        if nearest
        else trials_above(pairs, threshold, track)
    )
    rate = max(matched.match_rate(threshold), 2 / (n * (n_classes - 1)))
    if nearest:
        unknown = collect_unknown(pairs, tail_rate(rate, n_classes), seed=seed, track=track)
    else:
        unknown = collect_trials(pairs, rate, seed=seed, track=track)
    tail = match_tail(unknown, rate, weights, below=threshold)
    if tail is None:
        return None
    bound = plan_gallery(n, n_classes, None).fpir(tail.interval(threshold, confidence).bound)
    return bound if bound > 0 else None


def _measured_means(
    pairs: Pairs,
    threshold: float,
    confidence: float,
    weights: Float64s,
    identification: bool,
    classes_disjoint: bool,
    seed: int,
    track: Track,
) -> Measured:
    fpir, fnir = _identification(best_means(pairs, track), threshold)
    upper, how = None, ""
    if identification and fpir is not None:
        upper = fpir_bound(
            pairs, threshold, confidence, weights, aggregate="mean_of_class", seed=seed, track=track
        )
        how = f"; {_left_out(pairs)} of means"
    evidence = Evidence(
        n_items=len(pairs.a),
        n_classes=len(pairs.classes),
        n_genuine_pairs=pairs.n_genuine,
        n_impostor_pairs=pairs.n_impostor,
        far=None,
        far_upper=None,
        frr=None,
        frr_upper=None,
        fpir=fpir,
        fpir_upper=upper,
        fnir=fnir,
        method=f"means over {len(pairs.a) / len(pairs.classes):.3g} items a class on average; {METHOD}{how}",
        classes_disjoint=classes_disjoint,
    )
    return Measured(evidence, [])


def _left_out(pairs: Pairs) -> str:
    return f"fpir: each class unknown to the {len(pairs.classes) - 1} others, bound along the tail"


def _identification(best: tuple[Float32s, Float32s], threshold: float) -> tuple[float | None, float | None]:
    best_same, best_other = best
    fpir = float(np.mean(best_other >= np.float32(threshold))) if np.isfinite(best_other).any() else None
    known = np.isfinite(best_same)
    if not known.any():
        return fpir, None
    return fpir, float(known_queries_missed(best_same[known], best_other[known], threshold).mean())


def best_scores(pairs: Pairs) -> tuple[Float32s, Float32s]:
    """Float32 [n] each: best score with another item of the own class, and of any other; -inf if none."""
    n = len(pairs.a)
    same, other = np.full(n, -np.inf, dtype=np.float32), np.full(n, -np.inf, dtype=np.float32)
    for part in pairs.genuine_parts():
        np.maximum.at(same, part.a, part.scores)
        np.maximum.at(same, part.b, part.scores)
    for block in pairs.blocks():
        scores = np.where(pairs.impostors(block), block.scores, np.float32(-np.inf))
        np.maximum(other[block.rows], scores.max(axis=1), out=other[block.rows])
        np.maximum(other[block.columns], scores.max(axis=0), out=other[block.columns])
    return same, other


def _class_rates(pairs: Pairs, matrix: Any, rejected: Float64s, totals: Float64s) -> list[ClassRates]:
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
                utility=None if far is None or frr is None else utility(far, frr),
            )
        )
    return rates


def utility(far: float, frr: float) -> float:
    """Harmonic mean of specificity and sensitivity (arXiv 2307.04047, section 3, c = 1)."""
    total = (1 - far) + (1 - frr)
    return 2 * (1 - far) * (1 - frr) / total if total > 0 else 0.0
