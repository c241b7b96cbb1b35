"""Threshold consistency: OPIS in its forms (arXiv 2307.04047, section 3; contract, section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from api_schemas.report import CalibrationRange, ClassConsistency, Consistency, UtilityBand
from common.array_types import Float64s, Int64s
from common.progress import Track, silent
from evaluation.metrics.opis_intervals import interval
from evaluation.metrics.split_half_opis import ITEMS_NEEDED, Debiased, debiased
from evaluation.metrics.threshold_grid import Grid, grid_of
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threshold_levels import levels_of

Variant = Literal["best-worst", "worst-mean"]

FEW_ITEMS = 8  # below this many items per class even the debiased value is unsure (methods 1.7)


@dataclass(frozen=True)
class Settings:
    """What consistency is measured at: the contract's values unless chosen otherwise.

    Attributes:
        far: pooled FAR at the two ends of the calibration range.
        grid: thresholds, ends included.
        c: weight of specificity in the utility.
        epsilon: share of classes that are best or worst in ε-OPIS.
        variant: best against worst classes, or worst classes against the mean of all.
    """

    far: tuple[float, float] = (0.01, 0.1)
    grid: int = 101
    c: float = 1.0
    epsilon: float = 0.1
    variant: Variant = "best-worst"


def utilities(sensitivity: Float64s, specificity: Float64s, c: float = 1.0) -> Float64s:
    """U = (1 + c²) φ ψ / (c² φ + ψ) with φ = 1 - FAR and ψ = 1 - FRR; 0 where both are 0."""
    below = c * c * specificity + sensitivity
    above = (1 + c * c) * specificity * sensitivity
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def opis(u: Float64s) -> float:
    """Mean over thresholds and classes of (U_i(d) - mean_i U_i(d))²; ``u`` float64 [classes, grid]."""
    return float(contributions(u).mean())


def contributions(u: Float64s) -> Float64s:
    """float64 [classes]: each class's mean squared deviation from the mean utility; OPIS is their mean."""
    return np.asarray(np.square(u - u.mean(axis=0)).mean(axis=1))


def epsilon_opis(u: Float64s, epsilon: float, variant: Variant = "best-worst") -> float:
    """Mean squared gap between the best and the worst classes, ranked anew at each threshold.

    The best and worst are ``max(1, round(epsilon * classes))`` classes; with ``worst-mean`` the gap
    is between the worst and the mean of all classes.
    """
    ordered = np.sort(u, axis=0)
    m = max(1, round(epsilon * len(u)))
    upper = ordered[-m:].mean(axis=0) if variant == "best-worst" else ordered.mean(axis=0)
    return float(np.square(upper - ordered[:m].mean(axis=0)).mean())


def consistency(
    found: Sweep, settings: Settings, seed: int, debias: bool = True, track: Track = silent
) -> tuple[Consistency, list[str]]:
    """Every figure of the report's section ``consistency``, and why those that are null are null.

    The sweep's list of top pairs is used up.
    """
    pairs = found.pairs
    scored = np.flatnonzero((pairs.genuine_per_class > 0) & (pairs.impostor_per_class > 0))
    grid = grid_of(found, settings.far, settings.grid)
    thresholds = np.concatenate([grid.uniform, grid.log_far])
    order = np.argsort(thresholds, kind="stable")
    levels = levels_of(found, thresholds[order])
    back = np.argsort(order)
    genuine = levels.genuine.accepted[:, back]
    impostor = levels.impostor.accepted[:, back]
    far = np.divide(
        impostor,
        pairs.impostor_per_class[:, None],
        out=np.full(impostor.shape, np.nan),
        where=pairs.impostor_per_class[:, None] > 0,
    )
    reasons: list[str] = []
    if len(scored) < 2:
        reasons.append(
            f"OPIS compares classes and needs two with a genuine and an impostor pair; found {len(scored)}."
        )
        return _without_opis(pairs, grid, far, settings), reasons
    frr = 1 - genuine[scored] / pairs.genuine_per_class[scored, None]
    u = utilities(1 - frr, 1 - far[scored], settings.c)
    linear, log = u[:, : settings.grid], u[:, settings.grid :]
    unbiased = None
    if debias:
        grids = (order >= settings.grid).astype(np.int64)
        unbiased = debiased(pairs, levels, grids, settings.c, seed, track)
        reasons += _reasons(pairs, scored, unbiased)
    intervals = _intervals(unbiased, u, scored, settings.grid, seed, reasons)
    plain = opis(linear)
    value, value_log = (None, None) if unbiased is None else (float(v) for v in unbiased.values)
    return (
        Consistency(
            opis=plain,
            opis_debiased=value,
            opis_ci=intervals[0],
            noise_floor=None if value is None else plain - value,
            opis_logfar=opis(log),
            opis_logfar_debiased=value_log,
            opis_logfar_ci=intervals[1],
            epsilon_opis={f"{settings.epsilon:g}": epsilon_opis(linear, settings.epsilon, settings.variant)},
            epsilon_variant=settings.variant,
            calibration_range=_range(grid),
            c=settings.c,
            grid=settings.grid,
            thresholds=grid.uniform.tolist(),
            mean_utility=linear.mean(axis=0).tolist(),
            band=UtilityBand(
                p05=np.quantile(linear, 0.05, axis=0).tolist(), p95=np.quantile(linear, 0.95, axis=0).tolist()
            ),
            per_class=_per_class(pairs, far[:, : settings.grid], scored, frr[:, : settings.grid], linear),
        ),
        reasons,
    )


def _intervals(
    unbiased: Debiased | None, u: Float64s, scored: Int64s, size: int, seed: int, reasons: list[str]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    if unbiased is None:
        return None, None
    rows = np.searchsorted(scored, unbiased.classes)
    results = [
        interval(products, u[rows, first : first + size], seed)
        for products, first in zip(unbiased.by_class, (0, size), strict=True)
    ]
    if results[0] is None:
        reasons.append("An interval by resampling classes needs at least 5 classes of 4 items.")
    return results[0], results[1]


def _reasons(pairs: Pairs, scored: Int64s, unbiased: Debiased | None) -> list[str]:
    sizes = pairs.class_sizes[scored]
    if unbiased is None:
        return [
            f"The debiased OPIS needs two classes of at least {ITEMS_NEEDED} items; "
            f"the largest class has {int(sizes.max())}."
        ]
    found = []
    left_out = len(scored) - len(unbiased.classes)
    if left_out:
        found.append(
            f"The debiased OPIS is over {len(unbiased.classes)} classes; {left_out} have fewer than "
            f"{ITEMS_NEEDED} items and count in the plain OPIS alone."
        )
    few = int((pairs.class_sizes[unbiased.classes] < FEW_ITEMS).sum())
    if few:
        found.append(
            f"{few} classes have fewer than {FEW_ITEMS} items: sampling noise weighs on OPIS, "
            "so look at the debiased value and its interval."
        )
    return found


def _range(grid: Grid) -> CalibrationRange:
    ends = float(grid.uniform.min()), float(grid.uniform.max())
    return CalibrationRange(far=grid.far, distance=grid.distance, score=ends)


def _per_class(
    pairs: Pairs, far: Float64s, scored: Int64s, frr: Float64s | None, u: Float64s | None
) -> list[ClassConsistency]:
    shares = None if u is None else contributions(u)
    place = np.full(len(pairs.classes), -1)
    place[scored] = np.arange(len(scored))
    means = far.mean(axis=1)
    rows = []
    for code, label in enumerate(pairs.classes):
        k = int(place[code])
        has = k >= 0 and frr is not None and u is not None and shares is not None
        rows.append(
            ClassConsistency(
                label=str(label),
                n_items=int(pairs.class_sizes[code]),
                far=None if np.isnan(means[code]) else float(means[code]),
                frr=float(frr[k].mean()) if has and frr is not None else None,
                utility=float(u[k].mean()) if has and u is not None else None,
                contribution=float(shares[k]) if has and shares is not None else None,
            )
        )
    return rows


def _without_opis(pairs: Pairs, grid: Grid, far: Float64s, settings: Settings) -> Consistency:
    return empty_consistency(settings).model_copy(
        update={
            "calibration_range": _range(grid),
            "per_class": _per_class(pairs, far[:, : settings.grid], np.zeros(0, dtype=np.int64), None, None),
        }
    )


def empty_consistency(settings: Settings) -> Consistency:
    """The section where no figure can be given."""
    return Consistency(
        opis=None,
        opis_debiased=None,
        opis_ci=None,
        noise_floor=None,
        opis_logfar=None,
        opis_logfar_debiased=None,
        opis_logfar_ci=None,
        epsilon_opis={f"{settings.epsilon:g}": None},
        epsilon_variant=settings.variant,
        calibration_range=None,
        c=settings.c,
        grid=settings.grid,
        thresholds=[],
        mean_utility=[],
        band=UtilityBand(p05=[], p95=[]),
        per_class=[],
    )
