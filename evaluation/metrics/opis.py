"""Threshold consistency: OPIS in its forms (docs/specification.md, OPIS; arXiv 2307.04047, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from api_schemas.report import CalibrationRange, ClassConsistency, Consistency, UtilityBand
from common.array_types import Float64s, Int64s, Texts
from common.progress import Track, silent
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.class_bootstrap import compute_opis_interval
from evaluation.metrics.split_half_opis import ITEMS_NEEDED, DebiasedOpis, compute_debiased_opis
from evaluation.metrics.threshold_grid import build_threshold_grid
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.threshold_levels import sort_by_level

Variant = Literal["best-worst", "worst-mean"]
Ends = tuple[float, float]

FEW_ITEMS = 8  # below this many items per class even the debiased value is unsure


@dataclass(frozen=True)
class OpisSettings:
    """Settings of the consistency figures: the specification's values unless others are given.

    Attributes:
        far: pooled FAR at the two ends of the calibration range.
        grid: thresholds, ends included.
        c: weight of specificity in the utility.
        epsilon: fraction of classes that are best or worst in ε-OPIS.
        variant: best against worst classes, or worst classes against the mean of all.
        thresholds: descending, in place of those that the range and the grid give for the data at hand.
    """

    far: Ends = (0.01, 0.1)
    grid: int = 101
    c: float = 1.0
    epsilon: float = 0.1
    variant: Variant = "best-worst"
    thresholds: tuple[float, ...] | None = None


def compute_opis(u: Float64s) -> float:
    """Mean over thresholds and classes of (U_i(d) - mean_i U_i(d))²; ``u`` float64 [classes, grid]."""
    return float(compute_contributions(u).mean())


def compute_contributions(u: Float64s) -> Float64s:
    """float64 [classes]: each class's mean squared deviation from the mean utility; OPIS is their mean."""
    return np.asarray(np.square(u - u.mean(axis=0)).mean(axis=1))


def compute_epsilon_opis(u: Float64s, epsilon: float, variant: Variant = "best-worst") -> float:
    """Mean squared gap between the best and the worst classes, ranked again at each threshold.

    The best and worst are ``max(1, round(epsilon * classes))`` classes; with ``worst-mean`` the gap
    is between the worst and the mean of all classes.
    """
    ordered = np.sort(u, axis=0)
    m = max(1, round(epsilon * len(u)))
    upper = ordered[-m:].mean(axis=0) if variant == "best-worst" else ordered.mean(axis=0)
    return float(np.square(upper - ordered[:m].mean(axis=0)).mean())


def select_scored(pairs: Pairs) -> Int64s:
    """Codes of the classes that OPIS counts: those with at least one genuine and one impostor pair."""
    return np.flatnonzero((pairs.genuine_per_class > 0) & (pairs.impostor_per_class > 0))


def measure_consistency(
    sweep: Sweep, settings: OpisSettings, seed: int, debias: bool = True, track: Track = silent
) -> tuple[Consistency, list[str]]:
    """Every figure of the report's section ``consistency``, and why those that are null are null.

    The sweep's list of top pairs is used up.
    """
    pairs = sweep.pairs
    scored = select_scored(pairs)
    grid = build_threshold_grid(sweep, settings.far, settings.grid, settings.thresholds)
    thresholds = np.concatenate([grid.uniform, grid.log_far])
    order = np.argsort(thresholds, kind="stable")
    levels = sort_by_level(sweep, thresholds[order])
    back = np.argsort(order)
    genuine = levels.genuine.accepted[:, back]
    impostor = levels.impostor.accepted[:, back]
    far = np.divide(
        impostor,
        pairs.impostor_per_class[:, None],
        out=np.full(impostor.shape, np.nan),
        where=pairs.impostor_per_class[:, None] > 0,
    )
    ends = float(grid.uniform.min()), float(grid.uniform.max())
    reach = CalibrationRange(far=grid.far, distance=grid.distance, score=ends)
    if len(scored) < 2:
        reason = (
            f"OPIS compares classes and needs two with a genuine and an impostor pair; found {len(scored)}."
        )
        rows = build_class_rows(pairs.classes, pairs.class_sizes, far[:, : settings.grid])
        return build_consistency(settings, calibration_range=reach, per_class=rows), [reason]
    frr = 1 - genuine[scored] / pairs.genuine_per_class[scored, None]
    u = compute_utility(1 - far[scored], 1 - frr, settings.c)
    linear, log = u[:, : settings.grid], u[:, settings.grid :]
    debiased, reasons = None, []
    if debias:
        grids = (order >= settings.grid).astype(np.int64)
        debiased = compute_debiased_opis(pairs, levels, grids, settings.c, seed, track)
        reasons = _explain_debiased(pairs, scored, debiased)
    intervals = _compute_intervals(debiased, u, scored, settings.grid, seed, reasons)
    value, value_log = (None, None) if debiased is None else (float(v) for v in debiased.values)
    figures = summarize_utilities(linear, settings)
    consistency = build_consistency(
        settings,
        **figures,
        opis_debiased=value,
        opis_ci=intervals[0],
        noise_floor=None if value is None else figures["opis"] - value,
        opis_logfar=compute_opis(log),
        opis_logfar_debiased=value_log,
        opis_logfar_ci=intervals[1],
        calibration_range=reach,
        thresholds=grid.uniform.tolist(),
        per_class=build_class_rows(
            pairs.classes,
            pairs.class_sizes,
            far[:, : settings.grid],
            scored,
            frr[:, : settings.grid],
            linear,
        ),
    )
    return consistency, reasons


def summarize_utilities(u: Float64s, settings: OpisSettings) -> dict[str, Any]:
    """The figures of the section that the utilities, float64 [classes, grid], give by themselves."""
    p05, p95 = (np.quantile(u, level, axis=0).tolist() for level in (0.05, 0.95))
    epsilon_opis = compute_epsilon_opis(u, settings.epsilon, settings.variant)
    return {
        "opis": compute_opis(u),
        "epsilon_opis": {f"{settings.epsilon:g}": epsilon_opis},
        "mean_utility": u.mean(axis=0).tolist(),
        "band": UtilityBand(p05=p05, p95=p95),
    }


def _compute_intervals(
    debiased: DebiasedOpis | None, u: Float64s, scored: Int64s, size: int, seed: int, reasons: list[str]
) -> tuple[Ends | None, Ends | None]:
    """Of both grids; a reason is appended where classes are too few."""
    if debiased is None:
        return None, None
    rows = np.searchsorted(scored, debiased.classes)
    linear, log = (
        compute_opis_interval(products, u[rows, first : first + size], seed)
        for products, first in zip(debiased.by_class, (0, size), strict=True)
    )
    if linear is None:
        reasons.append("An interval by resampling classes needs at least 5 classes of 4 items.")
    return linear, log


def _explain_debiased(pairs: Pairs, scored: Int64s, debiased: DebiasedOpis | None) -> list[str]:
    """Reasons that the debiased value is missing or unsure."""
    if debiased is None:
        largest = int(pairs.class_sizes[scored].max())
        return [
            f"The debiased OPIS needs two classes of at least {ITEMS_NEEDED} items; "
            f"the largest class has {largest}."
        ]
    reasons = []
    n_small = len(scored) - len(debiased.classes)
    if n_small:
        reasons.append(
            f"The debiased OPIS is over {len(debiased.classes)} classes; {n_small} have fewer than "
            f"{ITEMS_NEEDED} items and count in the plain OPIS alone."
        )
    few = int((pairs.class_sizes[debiased.classes] < FEW_ITEMS).sum())
    if few:
        reasons.append(
            f"{few} classes have fewer than {FEW_ITEMS} items: sampling noise weighs on OPIS, "
            "so look at the debiased value and its interval."
        )
    return reasons


def build_class_rows(
    classes: Texts,
    sizes: Int64s,
    far: Float64s,
    scored: Int64s | None = None,
    frr: Float64s | None = None,
    u: Float64s | None = None,
) -> list[ClassConsistency]:
    """Means over the grid of every class; ``far`` float64 [classes, grid], the others [scored, grid]."""
    figures = np.full((4, len(classes)), np.nan)
    figures[0] = far.mean(axis=1)
    if frr is not None and u is not None:
        figures[1, scored] = [row.mean() for row in frr]
        figures[2, scored] = [row.mean() for row in u]
        figures[3, scored] = compute_contributions(u)
    return [
        ClassConsistency(
            label=str(label),
            n_items=int(sizes[code]),
            **{
                name: None if np.isnan(value) else float(value)
                for name, value in zip(("far", "frr", "utility", "contribution"), row, strict=True)
            },
        )
        for code, (label, row) in enumerate(zip(classes, figures.T, strict=True))
    ]


def build_consistency(settings: OpisSettings, **figures: Any) -> Consistency:
    """The section; a figure that is not given is null or empty."""
    fields: dict[str, Any] = dict.fromkeys(Consistency.model_fields)
    fields |= {name: [] for name in ("thresholds", "mean_utility", "per_class")}
    fields |= {"epsilon_opis": {f"{settings.epsilon:g}": None}, "epsilon_variant": settings.variant}
    fields |= {"c": settings.c, "grid": settings.grid, "band": UtilityBand(p05=[], p95=[])}
    return Consistency(**fields | figures)
