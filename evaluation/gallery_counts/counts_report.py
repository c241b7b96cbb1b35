"""The consistency report of a gallery from the counts of its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import ClassRates, Score
from api_schemas.report import (
    CalibrationRange,
    ClassesAtThreshold,
    Consistency,
    Counts,
    Geometry,
    Report,
    Retrieval,
    Verification,
    VerificationCurve,
)
from common.array_types import Float32s, Float64s, Int64s
from decision.scorers import Scorer
from embeddings.hashes import hash_items
from evaluation.gallery_counts.item_counts import ItemCounts
from evaluation.kernels.item_count_kernels import GENUINE, IMPOSTOR
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.opis import (
    OpisSettings,
    build_class_rows,
    build_consistency,
    summarize_utilities,
)
from evaluation.metrics.threshold_grid import convert_to_distance
from evaluation.pairs.threshold_levels import cumulate_levels

LEFT_OUT_OF_UPDATES = (
    "Brought up to date from the items that changed: retrieval, EER, AUC, geometry, log-FAR OPIS and "
    "intervals need all pairs, and are measured when the report is computed in full."
)
NOISE_FLOOR = "The noise floor, and with it the debiased OPIS, is that of the last report in full."


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Accepted and all pairs by class.

    Attributes:
        impostor, genuine: int64 [classes, k], accepted at each ascending threshold; a genuine pair
            counts once.
        n_impostor, n_genuine: int64 [classes].
    """

    impostor: Int64s
    genuine: Int64s
    n_impostor: Int64s
    n_genuine: Int64s


def count_by_class(counts: ItemCounts) -> ClassCounts:
    """The counts of the items, added up."""
    codes, n_classes = counts.items.codes, len(counts.items.classes)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(n_classes))
    impostor, genuine = (
        cumulate_levels(np.add.reduceat(counts.levels[order, kind], starts, axis=0, dtype=np.int64))
        for kind in (IMPOSTOR, GENUINE)
    )
    sizes = np.bincount(codes, minlength=n_classes)
    n_genuine = sizes * (sizes - 1) // 2
    return ClassCounts(impostor, genuine // 2, sizes * (len(codes) - sizes), n_genuine)


def measure_counted_consistency(
    counts: ItemCounts, grid: Float32s, by_distance: bool, noise_floor: float | None = None
) -> Consistency:
    """OPIS over the given thresholds, with everything else of the section that counts give.

    Args:
        grid: float32 [grid], among the counted thresholds.
        by_distance: the score is the similarity.
        noise_floor: plain less debiased OPIS, which counts cannot tell.
    """
    settings = OpisSettings(grid=len(grid))
    classes, sizes = counts.items.classes, np.bincount(counts.items.codes)
    columns = np.searchsorted(counts.thresholds, grid)
    of_class = count_by_class(counts)
    far = _divide(of_class.impostor[:, columns], of_class.n_impostor)
    pooled = of_class.impostor[:, columns].sum(axis=0) / max(1, of_class.n_impostor.sum())
    ends = float(grid.min()), float(grid.max())
    distances = convert_to_distance(np.array(ends, dtype=np.float32)).tolist()
    reach = CalibrationRange(
        far=(float(pooled.min()), float(pooled.max())),
        distance=(distances[1], distances[0]) if by_distance else None,
        score=ends,
    )
    scored = np.flatnonzero((of_class.n_genuine > 0) & (of_class.n_impostor > 0))
    if len(scored) < 2:
        return build_consistency(
            settings, calibration_range=reach, per_class=build_class_rows(classes, sizes, far)
        )
    frr = 1 - _divide(of_class.genuine[:, columns], of_class.n_genuine)[scored]
    u = compute_utility(1 - far[scored], 1 - frr, settings.c)
    figures = summarize_utilities(u, settings)
    return build_consistency(
        settings,
        **figures,
        opis_debiased=None if noise_floor is None else figures["opis"] - noise_floor,
        noise_floor=noise_floor,
        calibration_range=reach,
        thresholds=grid.tolist(),
        per_class=build_class_rows(classes, sizes, far, scored, frr, u),
    )


def measure_classes(counts: ItemCounts, threshold: float, c: float = OpisSettings().c) -> ClassesAtThreshold:
    """FAR, FRR and utility of every class at one of the counted thresholds."""
    column = int(np.searchsorted(counts.thresholds, np.float32(threshold)))
    of_class, sizes = count_by_class(counts), np.bincount(counts.items.codes)
    far = _divide(of_class.impostor[:, [column]], of_class.n_impostor)[:, 0]
    tar = _divide(of_class.genuine[:, [column]], of_class.n_genuine)[:, 0]
    utility = np.where(np.isnan(far + tar), np.nan, compute_utility(1 - far, tar, c))
    return ClassesAtThreshold(
        threshold=threshold,
        per_class=[
            ClassRates(
                label=str(label),
                n_items=int(size),
                far=_get(rates[0]),
                frr=_get(1 - rates[1]),
                utility=_get(rates[2]),
            )
            for label, size, *rates in zip(counts.items.classes, sizes, far, tar, utility, strict=True)
        ],
    )


def _get(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _divide(accepted: Int64s, totals: Int64s) -> Float64s:
    """Rates, float64 [classes, k]; NaN where there is no pair."""
    rates = np.full(accepted.shape, np.nan)
    np.divide(accepted, totals[:, None], out=rates, where=totals[:, None] > 0)
    return rates


def build_full_report(counts: ItemCounts, grid: Float32s, full: Report) -> Report:
    """The report of a walk over all pairs at the same thresholds, with the figures that counts give.

    They are the same, but for pairs within rounding of a threshold where a walk over very many pairs computes
    in float32; with them a report in full equals one that was brought up to date.
    """
    counted = measure_counted_consistency(counts, grid, full.score == Score())
    names = ("opis", "epsilon_opis", "mean_utility", "band", "per_class", "calibration_range", "thresholds")
    figures = {name: getattr(counted, name) for name in names}
    debiased = full.consistency.opis_debiased
    if counted.opis is not None and debiased is not None:
        figures["noise_floor"] = counted.opis - debiased
    return full.model_copy(update={"consistency": full.consistency.model_copy(update=figures)})


def build_counted_report(
    counts: ItemCounts,
    grid: Float32s,
    scorer: Scorer,
    model_hash: str,
    noise_floor: float | None = None,
    reasons: Sequence[str] = (),
) -> Report:
    """The report of a gallery from counts alone; what they cannot tell is null, with a reason.

    Args:
        noise_floor: of the last report in full.
        reasons: further ones.
    """
    consistency = measure_counted_consistency(counts, grid, scorer.is_similarity, noise_floor)
    of_class, items = count_by_class(counts), counts.items
    n_impostor, n_genuine = int(of_class.n_impostor.sum()) // 2, int(of_class.n_genuine.sum())
    curve = None
    if n_impostor and n_genuine:
        far, tar = of_class.impostor.sum(axis=0) / (2 * n_impostor), of_class.genuine.sum(axis=0) / n_genuine
        curve = VerificationCurve(
            threshold=counts.thresholds[::-1].tolist(), far=far[::-1].tolist(), frr=(1 - tar)[::-1].tolist()
        )
    sizes = np.bincount(items.codes)
    return Report(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=hash_items(items),
        split="gallery",
        score=scorer.score,
        reasons=[LEFT_OUT_OF_UPDATES, *([] if noise_floor is None else [NOISE_FLOOR]), *reasons],
        counts=Counts(
            items=len(items),
            classes=len(items.classes),
            classes_scored=sum(row.utility is not None for row in consistency.per_class),
            queries_without_partner=int((sizes == 1).sum()),
            genuine_pairs=n_genuine,
            impostor_pairs=n_impostor,
        ),
        retrieval=Retrieval(**dict.fromkeys(Retrieval.model_fields)),
        verification=Verification(eer=None, eer_threshold=None, auc=None, tar_at_far={}, curve=curve),
        identification=None,
        consistency=consistency,
        geometry=Geometry(alignment=None, uniformity=None, tolerance=None),
    )
