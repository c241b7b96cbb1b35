"""Two models on the same items: which is better, by how much beyond chance, and what changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from api_schemas.comparison import Comparison
from api_schemas.report import Difference
from common.array_types import Float64s, Int64s
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.decision_flips import count_flips, measure_compatibility
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.class_bootstrap import CLASSES_NEEDED, OPIS_DRAWS, draw_classes, resample_variances
from evaluation.metrics.identification import build_trials, find_refused_score
from evaluation.metrics.opis import select_scored
from evaluation.metrics.split_half_opis import debias_log_far
from evaluation.metrics.verification import compute_equal_error, interpolate_equal_error
from evaluation.pairs.exclusions import ExcludeSame
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import Sweep, sweep_pairs
from evaluation.pairs.threshold_levels import count_accepted_genuine, count_accepted_per_class


@dataclass(frozen=True)
class _ModelFigures:
    """Figures of one model by class, in the order of the classes.

    ``ratios``: a figure is the sum of the first over the sum of the second, float64 [classes] each.
    """

    eer: float
    errors: ClassErrorCurve
    threshold: float
    ratios: dict[str, tuple[Float64s, Float64s]]
    scored: Int64s
    products: Float64s | None
    halved: Int64s
    u: Float64s


def compare_models(
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
    exclude_same: ExcludeSame = None,
    track: Track = silent,
    seed: int = 0,
) -> Comparison:
    """Compare the embeddings of the same items by two models.

    Differences are paired: both models are resampled with the same classes, so that what the items have
    in common does not widen the interval. The grids and thresholds stay those of all items.

    Args:
        a, b: the same ids with the same labels, in any order; a is the old model, b the new one.
        far: the pooled FAR that each model's own threshold keeps, unless thresholds are given; the FNIR is
            at the threshold that keeps as high an FPIR.
        threshold_a, threshold_b: thresholds in use, e.g. of two operating points.
        exclude_same: what excluded pairs share, see ``evaluation.pairs.exclusions``.

    Raises:
        InputError: the two sets do not hold the same items.
    """
    a = a.subset(np.argsort(a.ids))  # so that no figure depends on the order of the rows
    b = _reorder_like(a, b)
    reasons: list[str] = []
    sweeps = [
        sweep_pairs(
            arrange(items, exclude_same=exclude_same, scorer=scorer, keep_rows=True),
            deepest_far=0.1,
            per_query=True,
            track=track,
        )
        for items, scorer in ((a, scorer_a), (b, scorer_b))
    ]
    if not all(sweep.pairs.n_genuine for sweep in sweeps):
        raise InputError("The two models share no genuine pair: at least one class needs two items.")
    if not all(sweep.pairs.n_impostor for sweep in sweeps):
        raise InputError("The two models share no impostor pair: at least one pair of two classes is needed.")
    thresholds = (threshold_a, threshold_b)
    models = [_measure(sweep, far, given, seed) for sweep, given in zip(sweeps, thresholds, strict=True)]
    if len(a.classes) < CLASSES_NEEDED:
        reasons.append(f"An interval by resampling classes needs at least {CLASSES_NEEDED} classes.")
    compatibility = None
    if a.dimension == b.dimension:
        compatibility = measure_compatibility(sweeps[0], sweeps[1], models[0].threshold)
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
        differences=_compute_differences(models, len(a.classes), seed),
        flips=count_flips(a, sweeps[0].pairs, sweeps[1].pairs, models[0].threshold, models[1].threshold),
        compatibility=compatibility,
    )


def _reorder_like(a: EmbeddingSet, b: EmbeddingSet) -> EmbeddingSet:
    """``b`` in the order of the ids of ``a``; raises InputError for other items or labels."""
    missing = np.setdiff1d(a.ids, b.ids)
    surplus = np.setdiff1d(b.ids, a.ids)
    if len(missing) or len(surplus):
        example = missing[0] if len(missing) else surplus[0]
        raise InputError(
            f"The two sets must hold the same items: {len(missing)} ids are in the first alone, "
            f"{len(surplus)} in the second alone, e.g. '{example}'."
        )
    ordered = b.subset(np.argsort(b.ids)[np.argsort(np.argsort(a.ids))])
    relabelled = np.flatnonzero(ordered.labels != a.labels)
    if len(relabelled):
        row = int(relabelled[0])
        raise InputError(
            f"The item '{a.ids[row]}' is labelled '{a.labels[row]}' in the first set and "
            f"'{ordered.labels[row]}' in the second ({len(relabelled)} such items)."
        )
    return ordered


def _measure(sweep: Sweep, far: str, threshold: float | None, seed: int) -> _ModelFigures:
    pairs, ranks = sweep.pairs, sweep.ranks
    assert ranks is not None
    n = len(pairs.classes)
    refused = sweep.find_refused_scores([far])[0]
    used = float(np.nextafter(refused, np.float32(np.inf)) if threshold is None else np.float32(threshold))
    eer, _ = compute_equal_error(sweep)
    errors = count_class_errors(sweep, eer)
    has_partner = ranks.n_partners > 0
    codes = pairs.a.codes[has_partner]
    counts = np.bincount(codes, minlength=n).astype(np.float64)
    accepted = count_accepted_genuine(pairs, [used])[:, 0]
    trials = build_trials(sweep, None)
    missed = ~(trials.right & (trials.known > find_refused_score(trials.unknown, far)))
    ratios = {
        "recall_at_1": (_sum_by_class(codes, ranks.first_rank[has_partner] == 1, n), counts),
        "map_at_r": (_sum_by_class(codes, ranks.map_at_r[has_partner], n), counts),
        "frr": (
            (pairs.genuine_per_class - accepted).astype(np.float64),
            pairs.genuine_per_class.astype(np.float64),
        ),
        "fnir": (_sum_by_class(codes, missed, n), counts),
    }
    levels, debiased = debias_log_far(sweep, seed)
    scored = select_scored(pairs)
    u = compute_utility(
        1 - levels.impostor.accepted[scored] / pairs.impostor_per_class[scored, None],
        levels.genuine.accepted[scored] / pairs.genuine_per_class[scored, None],
        1.0,
    )
    return _ModelFigures(
        eer=eer,
        errors=errors,
        threshold=used,
        ratios=ratios,
        scored=scored,
        products=None if debiased is None else debiased.by_class[0],
        halved=np.zeros(0, dtype=np.int64) if debiased is None else debiased.classes,
        u=u,
    )


def _sum_by_class(codes: Int64s, values: NDArray[np.generic], n: int) -> Float64s:
    return np.bincount(codes, values.astype(np.float64), minlength=n).astype(np.float64)


def _compute_differences(models: Sequence[_ModelFigures], n_classes: int, seed: int) -> list[Difference]:
    a, b = models
    rows = []
    enough = n_classes >= CLASSES_NEEDED
    weights = draw_classes(n_classes, seed, OPIS_DRAWS) / n_classes
    for name, higher_is_better in (
        ("recall_at_1", True),
        ("map_at_r", True),
        ("frr", False),
        ("fnir", False),
    ):
        sums_a, counts = a.ratios[name]
        sums_b, _ = b.ratios[name]
        total = weights @ counts
        drawn = (weights @ (sums_b - sums_a))[total > 0] / total[total > 0]
        value_a, value_b = float(sums_a.sum() / counts.sum()), float(sums_b.sum() / counts.sum())
        rows.append(_build_difference(name, value_a, value_b, drawn if enough else None, higher_is_better))
    shift_a, shift_b = (model.errors.resample_eer(weights) - model.eer for model in (a, b))
    drawn = b.eer - a.eer + shift_b - shift_a
    rows.append(_build_difference("eer", a.eer, b.eer, drawn[np.isfinite(drawn)] if enough else None, False))
    if a.products is None or b.products is None:
        rows.append(_build_difference("opis_logfar_debiased", None, None, None, False))
        return rows
    inside = np.searchsorted(a.scored, a.halved)
    drawn_a, _ = resample_variances(a.products, a.u[inside], seed)
    drawn_b, _ = resample_variances(b.products, b.u[inside], seed)
    values = float(a.products.mean()), float(b.products.mean())
    paired = drawn_b - drawn_a if len(a.halved) >= CLASSES_NEEDED else None
    rows.append(_build_difference("opis_logfar_debiased", *values, paired, False))
    return rows


def _build_difference(
    name: str, a: float | None, b: float | None, drawn: Float64s | None, higher_is_better: bool
) -> Difference:
    interval = None
    if drawn is not None:
        low, high = np.quantile(drawn, [0.025, 0.975])
        interval = (float(low), float(high))
    return Difference(
        name=name,
        a=a,
        b=b,
        difference=None if a is None or b is None else b - a,
        interval=interval,
        higher_is_better=higher_is_better,
    )


LEVELS = 65


REACH = 8.0  # the curve runs from an eighth of the EER to eight times it


@dataclass(frozen=True)
class ClassErrorCurve:
    """Accepted pairs, int64 [classes, k], at descending thresholds around the EER; totals, int64 [classes].

    An impostor pair counts for both of its classes.
    """

    genuine: Int64s
    impostor: Int64s
    genuine_total: Int64s
    impostor_total: Int64s

    def resample_eer(self, weights: Float64s) -> Float64s:
        """float64 [draws]: the EER where each class counts as often as it was drawn; NaN without pairs.

        An impostor pair counts with the weights of both of its classes. To first order a resample's FAR
        therefore moves twice as far from the pooled one as the fraction of its classes' accepted pairs
        does; the square of that fraction over the pooled FAR does so, and never falls below 0.

        Args:
            weights: float64 [draws, classes]; rows of equal entries give the EER of the curve itself.
        """
        pooled = self.impostor.sum(axis=0) / self.impostor_total.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            fraction = (weights @ self.impostor) / (weights @ self.impostor_total)[:, None]
            far = np.where(pooled > 0, np.square(fraction) / pooled, 0.0)
            frr = 1 - (weights @ self.genuine) / (weights @ self.genuine_total)[:, None]
        after = np.clip((far < frr).sum(axis=1), 1, far.shape[1] - 1)
        draws = np.arange(len(weights))
        f1, f2, r1, r2 = far[draws, after - 1], far[draws, after], frr[draws, after - 1], frr[draws, after]
        # where the rates do not cross within the curve, its nearer end
        eer = np.clip(interpolate_equal_error(f1, r1, f2, r2), np.minimum(f1, f2), np.maximum(f1, f2))
        return np.asarray(np.where(np.isfinite(f1 + r1), eer, np.nan))


def count_class_errors(sweep: Sweep, eer: float) -> ClassErrorCurve:
    """Count what each class accepts at thresholds around the EER, in one more walk over the pairs."""
    pairs = sweep.pairs
    n = pairs.n_impostor
    ends = max(eer, 1 / n) / REACH, min(1.0, max(eer, 1 / n) * REACH)
    ranks = np.clip(np.ceil(np.geomspace(*ends, LEVELS) * n), 1, n).astype(np.int64)
    genuine, impostor = count_accepted_per_class(pairs, sweep.find_impostor_scores(ranks))
    return ClassErrorCurve(genuine, impostor, pairs.genuine_per_class, pairs.impostor_per_class)
