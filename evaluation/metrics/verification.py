"""1:1 verification, over all pairs or of scores at hand: EER, AUC, TAR at given FARs, error curves."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.report import Verification, VerificationCurve
from common.array_types import Float32s, Float64s, Int64s
from decision.scorers import count_rejected
from evaluation.kernels.impostor_kernels import count_beaten_genuine
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import run_in_threads, split_rows

FARS = ("0.1", "0.01", "0.001", "0.0001")
CURVE_LEVELS = 160
CERTAIN = 1e-7  # error of the AUC below which pairs within one bin need not be distinguished


def measure_verification(sweep: Sweep) -> Verification:
    """All figures; null where there is no genuine pair."""
    if not sweep.pairs.n_genuine:
        return Verification(
            eer=None, eer_threshold=None, auc=None, tar_at_far=dict.fromkeys(FARS), curve=None
        )
    eer, threshold = compute_equal_error(sweep)
    return Verification(
        eer=eer,
        eer_threshold=threshold,
        auc=compute_sweep_auc(sweep),
        tar_at_far=compute_tar_at_far(sweep),
        curve=build_curve(sweep),
    )


def verify_scores(genuine: Float64s, impostor: Float64s) -> Verification:
    """The same figures of scores that are at hand, float64 [g] and [m], neither empty."""
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    far = 1.0 - count_rejected(np.sort(impostor), thresholds) / len(impostor)
    frr = count_rejected(np.sort(genuine), thresholds) / len(genuine)
    eer, threshold = find_equal_error(thresholds, far, frr)
    tar = 1.0 - frr
    return Verification(
        eer=eer,
        eer_threshold=threshold,
        auc=compute_auc(genuine, impostor),
        tar_at_far={key: float(tar[far <= float(key)].max(initial=0.0)) for key in FARS},
        curve=VerificationCurve(
            threshold=thresholds[::-1].tolist(), far=far[::-1].tolist(), frr=frr[::-1].tolist()
        ),
    )


def compute_equal_error(sweep: Sweep) -> tuple[float, float]:
    """EER and its threshold among all distinct scores (``find_equal_error``)."""
    n_genuine, n_impostor = sweep.pairs.n_genuine, sweep.pairs.n_impostor
    far = sweep.impostors_at_or_above / n_impostor
    frr = 1 - sweep.genuine_at_or_above / n_genuine
    crossing = int(np.flatnonzero(far >= frr)[-1])  # bin 0 accepts all: FAR 1, FRR 0
    # the points on both sides of the crossing are of this bin, or of the next that holds a score
    nearby = [np.flatnonzero(h[crossing + 1 :])[:1] for h in (sweep.histogram, sweep.genuine_histogram)]
    bins = np.concatenate([[crossing], *(after + crossing + 1 for after in nearby)])
    impostors, genuine = sweep.collect_impostor_scores(bins), sweep.collect_genuine_scores(bins)
    candidates = np.unique(np.concatenate([impostors, genuine]))
    accepted = sweep.count_accepted(candidates, sweep.impostors_at_or_above, impostors)
    kept = sweep.count_accepted(candidates, sweep.genuine_at_or_above, genuine)
    return find_equal_error(candidates, accepted / n_impostor, 1 - kept / n_genuine)


def compute_sweep_auc(sweep: Sweep) -> float:
    """``compute_auc`` of all pairs without holding their scores: by bins, and by score within shared bins."""
    genuine, impostor = sweep.genuine_histogram, sweep.histogram
    pairs = sweep.pairs.n_genuine * sweep.pairs.n_impostor
    twice = 2 * sum_products(impostor, sweep.genuine_at_or_above[1:])
    mixed = (genuine > 0) & (impostor > 0)
    if sum_products(impostor[mixed], genuine[mixed]) / (2 * pairs) <= CERTAIN:
        return (twice + sum_products(impostor, genuine)) / (2 * pairs)
    inside = sweep.collect_genuine_scores(np.flatnonzero(mixed))
    starts = np.concatenate([[0], np.cumsum(np.where(mixed, genuine, 0))])
    return (twice + _count_beaten(sweep, starts, inside)) / (2 * pairs)


def _count_beaten(sweep: Sweep, starts: Int64s, inside: Float32s) -> int:
    """Within bins, pairs of a genuine score and a lower impostor score counted twice, equal ones once."""
    bins, total = sweep.bins, 0
    for block in sweep.pairs.iterate_blocks():
        view = sweep.pairs.build_view(block)
        calls = [
            (view, rows, bins.scale, bins.lowest, starts, inside) for rows in split_rows(len(block.scores))
        ]
        total += sum(run_in_threads(count_beaten_genuine, calls))
    return total


def sum_products(a: Int64s, b: Int64s) -> int:
    """Exact sum of products of counts, which may exceed 64 bits for billions of pairs."""
    nonzero = np.flatnonzero((a != 0) & (b != 0))
    high, low = np.divmod(a[nonzero], 2**16)
    return int((high * b[nonzero]).sum()) * 2**16 + int((low * b[nonzero]).sum())


def compute_tar_at_far(sweep: Sweep) -> dict[str, float | None]:
    """The best TAR among thresholds whose FAR is at most the key."""
    n = sweep.pairs.n_impostor
    allowed = [int(Fraction(far) * n) for far in FARS]
    ranks = np.array([rank + 1 for rank in allowed if rank < n], dtype=np.int64)
    above = np.nextafter(sweep.find_impostor_scores(ranks), np.float32(np.inf))
    inside = sweep.collect_genuine_scores(np.unique(sweep.bins.find(above)))
    accepted = sweep.count_accepted(above, sweep.genuine_at_or_above, inside)
    tar = iter(accepted / sweep.pairs.n_genuine)
    return {far: float(next(tar)) if rank < n else 1.0 for far, rank in zip(FARS, allowed, strict=True)}


def build_curve(sweep: Sweep) -> VerificationCurve:
    """FAR and FRR at bin edges, where they are exact: spaced over both errors' levels, descending."""
    n_impostor, n_genuine = sweep.pairs.n_impostor, sweep.pairs.n_genuine
    levels = np.geomspace(1 / n_impostor, 1, CURVE_LEVELS)
    by_far = np.searchsorted(-sweep.impostors_at_or_above[1:-1], -levels * n_impostor) + 1
    levels = np.linspace(0, 1, CURVE_LEVELS)
    by_frr = np.searchsorted(-sweep.genuine_at_or_above[1:-1], -levels * n_genuine) + 1
    chosen = np.unique(np.clip(np.concatenate([by_far, by_frr]), 1, sweep.bins.count - 1))[::-1]
    return VerificationCurve(
        threshold=sweep.bins.compute_edges(chosen).tolist(),
        far=(sweep.impostors_at_or_above[chosen] / n_impostor).tolist(),
        frr=(1 - sweep.genuine_at_or_above[chosen] / n_genuine).tolist(),
    )


def compute_auc(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """Probability that a positive scores above a negative, ties counting one half; neither may be empty."""
    ascending = np.sort(negatives)
    below = np.searchsorted(ascending, positives, side="left").sum()
    through = np.searchsorted(ascending, positives, side="right").sum()
    return float((int(below) + int(through)) / (2 * len(negatives) * len(positives)))


def find_equal_error(thresholds: NDArray[np.floating], far: Float64s, frr: Float64s) -> tuple[float, float]:
    """The equal error rate and its threshold (docs/specification.md, FAR and FRR).

    The EER is where the line between two neighbouring points of the ROC meets FAR = FRR; the points are
    those given and that of accepting nothing. The threshold is the one of the two with the smaller
    |FAR - FRR|, the higher one when they are equal.

    Args:
        thresholds: float [k], ascending.
        far, frr: float64 [k], with FAR >= FRR at the first.
    """
    fars, frrs = np.append(far, 0.0), np.append(frr, 1.0)
    k = int(np.flatnonzero(fars >= frrs)[-1])
    eer = interpolate_equal_error(fars[k], frrs[k], fars[k + 1], frrs[k + 1])
    is_higher_nearer = abs(fars[k + 1] - frrs[k + 1]) <= abs(fars[k] - frrs[k])
    nearer = k + 1 if k + 1 < len(thresholds) and is_higher_nearer else k
    return float(eer), float(thresholds[nearer])


def interpolate_equal_error(far: Any, frr: Any, next_far: Any, next_frr: Any) -> Any:
    """FAR where the line through two points of a ROC meets FAR = FRR, elementwise; ``far`` if one point."""
    span = (far - next_far) + (next_frr - frr)
    meeting = far * next_frr - next_far * frr
    return np.where(span == 0, far, meeting / np.where(span == 0, 1.0, span))
