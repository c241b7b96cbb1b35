"""Where the figures come from: which groups, which classes, which pairs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.diagnosis import Diagnosis, GroupDiagnosis, ReliabilityDiagram, Thresholds
from api_schemas.operating_point import Probability
from common.array_types import Bools, Float64s, Texts
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import data_hash
from evaluation.calibration.calibrate import labelled_scores
from evaluation.calibration.fit_probability import reliability
from evaluation.calibration.pair_thresholds import genuine_pairs
from evaluation.metrics.class_spread import neural_collapse, spread_of, utilization
from evaluation.metrics.identification import FPIRS, threshold_above, trials
from evaluation.pairs.accepted_counts import accepted_per_class
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import Ranks
from evaluation.pairs.sweep import Sweep, sweep
from evaluation.pairs.worst_pairs import Examples

FARS = ("0.1", "0.01", "0.001")
MOST_GROUPS = 200
WORST = 20


def diagnose(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    training: EmbeddingSet | None = None,
    exclude_same: str | None = None,
    columns: Sequence[str] = (),
    scorer: Scorer | None = None,
    probability: Probability | None = None,
    worst: int = WORST,
    model_hash: str,
    split: str,
    track: Track = silent,
) -> Diagnosis:
    """Rates and ranks by class and by group, spread of the classes, and the hardest pairs.

    Args:
        items, gallery, exclude_same, scorer: as in ``evaluate``.
        training: what the model was trained on, for the utilization.
        columns: metadata columns whose values are groups; classes always are.
        probability: of an operating point with that score, to be judged on pairs of the set with itself.
        worst: how many of the hardest genuine and impostor pairs are named.

    Raises:
        InputError: a column that is not in the data, or that has too many values.
    """
    pairs = arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
    if pairs.n_impostor == 0 or pairs.n_genuine == 0:
        raise InputError("A diagnosis needs at least one genuine and one impostor pair.")
    values = {column: _values(items, column) for column in columns}
    found = sweep(pairs, deepest_far=0.1, per_query=True, track=track)
    assert found.ranks is not None
    thresholds = _thresholds(found)
    reasons: list[str] = []
    each = _PerQuery(found.ranks, thresholds)
    groups = _classes(pairs, thresholds, each)
    for column, texts in values.items():
        for value in np.unique(texts):
            group = _group(pairs, thresholds, each, column, str(value), texts[pairs.a.rows] == value)
            groups.append(group)
            if not group.impostor_pairs:
                reasons.append(f"The group {column} = {value} has no impostor pair, so it has no FAR.")
            if not group.genuine_pairs:
                reasons.append(f"The group {column} = {value} has no genuine pair, so it has no FRR.")
    if training is None:
        reasons.append("Utilization needs the embeddings of the training set.")
    references = items if gallery is None else gallery
    genuine, impostor = _hardest(found, worst)
    return Diagnosis(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=data_hash(items),
        split=split,
        score=pairs.scorer.score,
        reasons=reasons,
        thresholds=thresholds,
        groups=groups,
        spread=spread_of(items),
        neural_collapse=neural_collapse(items),
        utilization=None if training is None else utilization(items, training),
        reliability=_reliability(pairs, probability) if probability and pairs.symmetric else None,
        hardest_genuine=genuine.named(pairs, items, references),
        hardest_impostor=impostor.named(pairs, items, references),
    )


class _PerQuery:
    """Per row of ``a``: ranks and identification, NaN for queries that have no such figure."""

    def __init__(self, ranks: Ranks, thresholds: Thresholds) -> None:
        known, stranger = ranks.n_partners > 0, np.isfinite(ranks.best)
        first = np.where(known, ranks.first_rank == 1, np.nan)
        self.ranks = {
            "recall_at_1": first,
            "r_precision": ranks.r_precision,
            "map_at_r": ranks.map_at_r,
        }
        best = np.maximum(ranks.best_partner, ranks.best)
        self.fnir, self.fpir = {}, {}
        for key, threshold in thresholds.fpir.items():
            missed = ~(ranks.right & (best >= np.float32(threshold)))
            self.fnir[key] = np.where(known, missed, np.nan)
            self.fpir[key] = np.where(stranger, ranks.best >= np.float32(threshold), np.nan)

    def means(self, members: NDArray[Any]) -> dict[str, Any]:
        """The fields of a group that are means over its queries."""
        return {name: _mean(values[members]) for name, values in self.ranks.items()} | {
            "fnir": {key: _mean(values[members]) for key, values in self.fnir.items()},
            "fpir": {key: _mean(values[members]) for key, values in self.fpir.items()},
        }


def _mean(values: Float64s) -> float | None:
    given = values[~np.isnan(values)]
    return float(given.mean()) if len(given) else None


def _rate(accepted: int, total: int) -> float | None:
    return accepted / total if total else None


def _thresholds(found: Sweep) -> Thresholds:
    """The lowest thresholds that keep the pooled rates: just above the first score to be refused."""
    n = found.pairs.n_impostor
    ranks = np.array([min(n, int(Fraction(far) * n) + 1) for far in FARS], dtype=np.int64)
    refused = found.impostors_ranked(ranks)
    unknown = trials(found, None).unknown
    return Thresholds(
        far={key: _just_above(score) for key, score in zip(FARS, refused, strict=True)},
        fpir={key: _just_above(threshold_above(unknown, key)) for key in FPIRS},
    )


def _just_above(score: np.float32) -> float:
    return float(np.nextafter(max(score, np.float32(-1e30)), np.float32(np.inf)))


def _values(items: EmbeddingSet, column: str) -> Texts:
    if column not in items.metadata:
        known = ", ".join(sorted(items.metadata)) or "none"
        raise InputError(f"There is no column '{column}' to group by; the data has: {known}.")
    texts = np.asarray(items.metadata[column]).astype(np.str_)
    if len(np.unique(texts)) > MOST_GROUPS:
        raise InputError(
            f"The column '{column}' has {len(np.unique(texts))} values, at most {MOST_GROUPS} make groups."
        )
    return texts


def _classes(pairs: Pairs, thresholds: Thresholds, each: _PerQuery) -> list[GroupDiagnosis]:
    keys = list(thresholds.far)
    genuine, impostor = accepted_per_class(pairs, [thresholds.far[key] for key in keys])
    rows = []
    for code, label in enumerate(pairs.classes):
        n_genuine, n_impostor = int(pairs.genuine_per_class[code]), int(pairs.impostor_per_class[code])
        far = {key: _rate(int(impostor[code, k]), n_impostor) for k, key in enumerate(keys)}
        frr = {key: _rate(n_genuine - int(genuine[code, k]), n_genuine) for k, key in enumerate(keys)}
        members = np.arange(pairs.a.starts[code], pairs.a.starts[code + 1])
        rows.append(
            GroupDiagnosis(
                column="label",
                value=str(label),
                n_items=int(pairs.class_sizes[code]),
                n_classes=1,
                genuine_pairs=n_genuine,
                impostor_pairs=n_impostor,
                far=far,
                frr=frr,
                **each.means(members),
            )
        )
    return rows


def _group(
    pairs: Pairs, thresholds: Thresholds, each: _PerQuery, column: str, value: str, members: Bools
) -> GroupDiagnosis:
    part = pairs.within(np.flatnonzero(members))
    keys = list(thresholds.far)
    genuine, impostor = accepted_per_class(part, [thresholds.far[key] for key in keys])
    n_genuine, n_impostor = part.n_genuine, part.n_impostor
    return GroupDiagnosis(
        column=column,
        value=value,
        n_items=int(members.sum()),
        n_classes=len(np.unique(part.a.codes)),
        genuine_pairs=n_genuine,
        impostor_pairs=n_impostor,
        far={key: _rate(int(impostor[:, k].sum()) // 2, n_impostor) for k, key in enumerate(keys)},
        frr={key: _rate(n_genuine - int(genuine[:, k].sum()), n_genuine) for k, key in enumerate(keys)},
        **each.means(members),
    )


def _reliability(pairs: Pairs, probability: Probability) -> ReliabilityDiagram:
    found = reliability(labelled_scores(pairs, genuine_pairs(pairs), 0), probability)
    used = found.share > 0
    return ReliabilityDiagram(
        kind=probability.kind,
        prior=probability.prior,
        predicted=found.predicted[used].tolist(),
        observed=found.observed[used].tolist(),
        share=found.share[used].tolist(),
        ece=found.ece,
        brier=found.brier,
        log_loss=found.log_loss,
    )


def _hardest(found: Sweep, worst: int) -> tuple[Examples, Examples]:
    """Genuine pairs of the lowest and impostor pairs of the highest scores."""
    genuine, impostor = Examples(worst, lowest=True), Examples(worst)
    for part in found.pairs.genuine_parts():
        genuine.meet(part.a, part.b, part.scores)
    for chunk in found.top.chunks:
        impostor.meet(*chunk)
    return genuine, impostor
