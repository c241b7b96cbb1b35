"""Two models on the same items: which is better, by how much beyond chance, and what changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from api_schemas.comparison import Comparison, Difference
from common.array_types import Float64s, Int64s
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.decision_flips import compatibility, flips
from evaluation.comparison.resampled_eer import ErrorCurve, error_curve
from evaluation.metrics.opis import utilities
from evaluation.metrics.opis_intervals import CLASSES_NEEDED, DRAWS, resampled_variances, resampling_weights
from evaluation.metrics.split_half_opis import debiased
from evaluation.metrics.threshold_grid import grid_of
from evaluation.metrics.verification import equal_error
from evaluation.pairs.accepted_counts import accepted_genuine
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import Sweep, sweep
from evaluation.pairs.threshold_levels import levels_of

GRID = 101


@dataclass(frozen=True)
class _Model:
    """What one model gives per class, in the order of the classes.

    ``sums`` and ``counts`` float64 [classes]: a figure is the sum of one over the sum of the other.
    """

    eer: float
    errors: ErrorCurve
    threshold: np.float32
    ratios: dict[str, tuple[Float64s, Float64s]]
    scored: Int64s
    products: Float64s | None
    halved: Int64s
    u: Float64s


def compare(
    a: EmbeddingSet,
    b: EmbeddingSet,
    *,
    far: str = "0.01",
    scorer_a: Scorer | None = None,
    scorer_b: Scorer | None = None,
    threshold_a: float | None = None,
    threshold_b: float | None = None,
    model_hash_a: str,
    model_hash_b: str,
    exclude_same: str | None = None,
    track: Track = silent,
    seed: int = 0,
) -> Comparison:
    """Compare the embeddings of the same items by two models.

    Differences are paired: both models are resampled with the same classes, so that what the items have
    in common does not widen the interval. The grids and thresholds stay those of all items.

    Args:
        a, b: the same ids with the same labels, in any order; a is the old model, b the new one.
        far: the pooled FAR that each model's own threshold keeps, unless thresholds are given.
        scorer_a, scorer_b: scores of pairs; similarities unless given.
        threshold_a, threshold_b: thresholds in use, e.g. of two operating points.
        model_hash_a, model_hash_b: copied into the result.
        exclude_same: a metadata column; pairs that share its value are left out.
        track: shown the blocks of pairs.
        seed: of halvings and resampling.

    Raises:
        InputError: the two sets do not hold the same items.
    """
    b = _in_order_of(a, b)
    reasons: list[str] = []
    sweeps = [
        sweep(
            arrange(items, exclude_same=exclude_same, scorer=scorer),
            deepest_far=0.1,
            per_query=True,
            track=track,
        )
        for items, scorer in ((a, scorer_a), (b, scorer_b))
    ]
    if not all(found.pairs.n_genuine for found in sweeps):
        raise InputError("The two models share no genuine pair: at least one class needs two items.")
    thresholds = (threshold_a, threshold_b)
    models = [_measure(found, far, given, seed) for found, given in zip(sweeps, thresholds, strict=True)]
    if len(a.classes) < CLASSES_NEEDED:
        reasons.append(f"An interval by resampling classes needs at least {CLASSES_NEEDED} classes.")
    mixed = None
    if a.dimension == b.dimension:
        mixed = compatibility(sweeps[0], sweeps[1], models[0].threshold)
    else:
        reasons.append(
            f"The old vectors have {a.dimension} numbers, the new ones {b.dimension}: "
            "new queries cannot search the old gallery."
        )
    return Comparison(
        created_at=datetime.now(UTC),
        model_hash_a=model_hash_a,
        model_hash_b=model_hash_b,
        score_a=sweeps[0].pairs.scorer.score,
        score_b=sweeps[1].pairs.scorer.score,
        n_items=len(a),
        n_classes=len(a.classes),
        far=float(far),
        reasons=reasons,
        differences=_differences(models, len(a.classes), seed),
        flips=flips(a, sweeps[0].pairs, sweeps[1].pairs, models[0].threshold, models[1].threshold),
        compatibility=mixed,
    )


def _in_order_of(a: EmbeddingSet, b: EmbeddingSet) -> EmbeddingSet:
    missing = np.setdiff1d(a.ids, b.ids)
    strange = np.setdiff1d(b.ids, a.ids)
    if len(missing) or len(strange):
        example = missing[0] if len(missing) else strange[0]
        raise InputError(
            f"The two sets must hold the same items: {len(missing)} ids are in the first alone, "
            f"{len(strange)} in the second alone, e.g. '{example}'."
        )
    ordered = b.subset(np.argsort(b.ids)[np.argsort(np.argsort(a.ids))])
    other = np.flatnonzero(ordered.labels != a.labels)
    if len(other):
        row = int(other[0])
        raise InputError(
            f"The item '{a.ids[row]}' is labelled '{a.labels[row]}' in the first set and "
            f"'{ordered.labels[row]}' in the second ({len(other)} such items)."
        )
    return ordered


def _measure(found: Sweep, far: str, threshold: float | None, seed: int) -> _Model:
    pairs, ranks = found.pairs, found.ranks
    assert ranks is not None
    n = len(pairs.classes)
    allowed = int(Fraction(far) * pairs.n_impostor)
    refused = found.impostors_ranked(np.array([min(allowed + 1, pairs.n_impostor)], dtype=np.int64))[0]
    used = np.nextafter(refused, np.float32(np.inf)) if threshold is None else np.float32(threshold)
    eer, _ = equal_error(found)
    errors = error_curve(found, eer)
    have = ranks.n_partners > 0
    codes = pairs.a.codes[have]
    counts = np.bincount(codes, minlength=n).astype(np.float64)
    accepted = accepted_genuine(pairs, np.array([used]))[:, 0]
    ratios = {
        "recall_at_1": (_sums(codes, ranks.first_rank[have] == 1, n), counts),
        "map_at_r": (_sums(codes, ranks.map_at_r[have], n), counts),
        "frr": (
            (pairs.genuine_per_class - accepted).astype(np.float64),
            pairs.genuine_per_class.astype(np.float64),
        ),
    }
    thresholds = grid_of(found, size=GRID).log_far
    order = np.argsort(thresholds, kind="stable")
    levels = levels_of(found, thresholds[order])
    scored = np.flatnonzero((pairs.genuine_per_class > 0) & (pairs.impostor_per_class > 0))
    u = utilities(
        levels.genuine.accepted[scored] / pairs.genuine_per_class[scored, None],
        1 - levels.impostor.accepted[scored] / pairs.impostor_per_class[scored, None],
    )
    value = debiased(pairs, levels, np.zeros(GRID, dtype=np.int64), 1.0, seed)
    return _Model(
        eer=eer,
        errors=errors,
        threshold=np.float32(used),
        ratios=ratios,
        scored=scored,
        products=None if value is None else value.by_class[0],
        halved=np.zeros(0, dtype=np.int64) if value is None else value.classes,
        u=u,
    )


def _sums(codes: Int64s, values: NDArray[np.generic], n: int) -> Float64s:
    return np.bincount(codes, values.astype(np.float64), minlength=n).astype(np.float64)


def _differences(models: Sequence[_Model], n_classes: int, seed: int) -> list[Difference]:
    a, b = models
    rows = []
    weights = resampling_weights(n_classes, DRAWS, seed)
    for name, better in (("recall_at_1", True), ("map_at_r", True), ("frr", False)):
        sums_a, counts = a.ratios[name]
        sums_b, _ = b.ratios[name]
        total = weights @ counts
        drawn = (weights @ (sums_b - sums_a))[total > 0] / total[total > 0]
        value_a, value_b = float(sums_a.sum() / counts.sum()), float(sums_b.sum() / counts.sum())
        rows.append(
            _difference(name, value_a, value_b, drawn if n_classes >= CLASSES_NEEDED else None, better)
        )
    shifts = [one.errors.resampled_eer(weights) - one.eer for one in (a, b)]
    drawn = b.eer - a.eer + shifts[1] - shifts[0]
    rows.append(
        _difference(
            "eer", a.eer, b.eer, drawn[np.isfinite(drawn)] if n_classes >= CLASSES_NEEDED else None, False
        )
    )
    if a.products is None or b.products is None:
        rows.append(_difference("opis_logfar_debiased", None, None, None, False))
        return rows
    inside = np.searchsorted(a.scored, a.halved)
    drawn_a, _ = resampled_variances(a.products, a.u[inside], seed)
    drawn_b, _ = resampled_variances(b.products, b.u[inside], seed)
    values = float(a.products.mean()), float(b.products.mean())
    paired = drawn_b - drawn_a if len(a.halved) >= CLASSES_NEEDED else None
    rows.append(_difference("opis_logfar_debiased", *values, paired, False))
    return rows


def _difference(
    name: str, a: float | None, b: float | None, drawn: Float64s | None, better: bool
) -> Difference:
    interval = None
    if drawn is not None:
        low, high = np.quantile(drawn, [0.025, 0.975])
        interval = (float(low), float(high))
    difference = None if a is None or b is None else b - a
    return Difference(name=name, a=a, b=b, difference=difference, interval=interval, higher_is_better=better)
