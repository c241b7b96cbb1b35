"""1:1 verification over all pairs: EER, AUC, TAR at given FARs and the two error curves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from api_schemas.report import Verification, VerificationCurve
from common.array_types import Bools, Float32s, Int64s
from evaluation.kernels.impostor_kernels import beaten_genuine
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threads import in_threads, row_shares

FARS = ("0.1", "0.01", "0.001", "0.0001")
CURVE_LEVELS = 160
CERTAIN = 1e-7  # error of the AUC below which pairs within one bin need not be told apart


def verification(found: Sweep) -> Verification:
    """All figures; null where there is no genuine pair."""
    if not found.pairs.n_genuine:
        return Verification(
            eer=None, eer_threshold=None, auc=None, tar_at_far=dict.fromkeys(FARS), curve=None
        )
    eer, threshold = equal_error(found)
    return Verification(
        eer=eer,
        eer_threshold=threshold,
        auc=auc(found),
        tar_at_far=tar_at_far(found),
        curve=curve(found),
    )


def equal_error(found: Sweep) -> tuple[float, float]:
    """Where the line through the ROC's points meets FAR = FRR, and the observed score nearest to it.

    The points are those of every distinct score as a threshold, and of no acceptance at all. The
    threshold is the one of the two points around the crossing with the smaller |FAR - FRR|, the
    higher one when they are equal.
    """
    n_genuine, n_impostor = found.pairs.n_genuine, found.pairs.n_impostor
    far, frr = found.impostors_from / n_impostor, 1 - found.genuine_from / n_genuine
    crossing = int(np.flatnonzero(far >= frr)[-1])  # bin 0 accepts all: FAR 1, FRR 0
    # the points on both sides of the crossing are of this bin, or of the next that holds a score
    nearby = [np.flatnonzero(h[crossing + 1 :])[:1] for h in (found.histogram, found.genuine_histogram)]
    bins = np.concatenate([[crossing], *(after + crossing + 1 for after in nearby)])
    impostors, genuine = found.impostor_scores_in(bins), found.genuine_scores_in(bins)
    candidates = np.unique(np.concatenate([impostors, genuine]))
    fars = np.append(found.accepted(candidates, found.impostors_from, impostors) / n_impostor, 0.0)
    frrs = np.append(1 - found.accepted(candidates, found.genuine_from, genuine) / n_genuine, 1.0)
    k = int(np.flatnonzero(fars >= frrs)[-1])
    f1, f2, r1, r2 = fars[k], fars[k + 1], frrs[k], frrs[k + 1]
    eer = (f1 * r2 - f2 * r1) / ((f1 - f2) + (r2 - r1))
    nearer = k + 1 if k + 1 < len(candidates) and abs(f2 - r2) <= abs(f1 - r1) else k
    return float(eer), float(candidates[nearer])


def auc(found: Sweep) -> float:
    """Probability that a genuine pair scores above an impostor pair, ties counting one half."""
    genuine, impostor = found.genuine_histogram, found.histogram
    pairs = found.pairs.n_genuine * found.pairs.n_impostor
    twice = 2 * sum_of_products(impostor, found.genuine_from[1:])
    mixed = (genuine > 0) & (impostor > 0)
    if sum_of_products(impostor[mixed], genuine[mixed]) / (2 * pairs) <= CERTAIN:
        return (twice + sum_of_products(impostor, genuine)) / (2 * pairs)
    inside = found.genuine_scores_in(np.flatnonzero(mixed))
    # of the genuine scores in mixed bins, those of higher bins were counted already
    higher = np.concatenate([np.cumsum(np.where(mixed, genuine, 0)[::-1])[::-1][1:], [0]])
    twice += _beaten_within(found, mixed, inside) - 2 * sum_of_products(impostor[mixed], higher[mixed])
    return twice / (2 * pairs)


def _beaten_within(found: Sweep, mixed: Bools, inside: Float32s) -> int:
    total = 0
    for block in found.pairs.blocks():
        place = found.pairs.place(block)
        total += sum(
            in_threads(
                beaten_genuine,
                [
                    (place, share, found.bins.scale, found.bins.lowest, mixed, inside)
                    for share in row_shares(len(block.scores))
                ],
            )
        )
    return total


def sum_of_products(a: Int64s, b: Int64s) -> int:
    """Exact sum of products of counts, which may exceed 64 bits for billions of pairs."""
    nonzero = np.flatnonzero((a != 0) & (b != 0))
    high, low = np.divmod(a[nonzero], 2**16)
    return int((high * b[nonzero]).sum()) * 2**16 + int((low * b[nonzero]).sum())


def tar_at_far(found: Sweep) -> dict[str, float | None]:
    """The best TAR among thresholds whose FAR is at most the key."""
    n = found.pairs.n_impostor
    allowed = [int(Fraction(far) * n) for far in FARS]
    ranks = np.array([rank + 1 for rank in allowed if rank < n], dtype=np.int64)
    above = np.nextafter(found.impostors_ranked(ranks), np.float32(np.inf))
    inside = found.genuine_scores_in(np.unique(found.bins.of(above)))
    accepted = iter(found.accepted(above, found.genuine_from, inside) / found.pairs.n_genuine)
    return {far: float(next(accepted)) if rank < n else 1.0 for far, rank in zip(FARS, allowed, strict=True)}


def curve(found: Sweep) -> VerificationCurve:
    """FAR and FRR at bin edges, where they are exact: spaced over both errors' levels, descending."""
    n_impostor, n_genuine = found.pairs.n_impostor, found.pairs.n_genuine
    levels = np.geomspace(1 / n_impostor, 1, CURVE_LEVELS)
    by_far = np.searchsorted(-found.impostors_from[1:-1], -levels * n_impostor) + 1
    levels = np.linspace(0, 1, CURVE_LEVELS)
    by_frr = np.searchsorted(-found.genuine_from[1:-1], -levels * n_genuine) + 1
    chosen = np.unique(np.clip(np.concatenate([by_far, by_frr]), 1, found.bins.count - 1))[::-1]
    return VerificationCurve(
        threshold=found.bins.edge(chosen).tolist(),
        far=(found.impostors_from[chosen] / n_impostor).tolist(),
        frr=(1 - found.genuine_from[chosen] / n_genuine).tolist(),
    )
