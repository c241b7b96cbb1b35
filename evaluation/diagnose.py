"""Breakdown of a report by group, class and pair."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.diagnosis import Diagnosis, GroupDiagnosis, ReliabilityDiagram, Thresholds
from api_schemas.operating_point import Probability
from common.array_types import Bools, Float64s, Int64s, Texts
from common.errors import InputError
from common.progress import Track, silent
from decision.scorers import Scorer, accepts
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.calibration.fit_probability import measure_reliability
from evaluation.calibration.nearest_scores import sample_labelled_pairs
from evaluation.metrics.geometry import compute_neural_collapse, compute_utilization, measure_class_spread
from evaluation.metrics.identification import FPIRS, build_trials, find_refused_score
from evaluation.pairs.exclusions import ExcludeSame
from evaluation.pairs.group_column import read_group_values
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import Ranks
from evaluation.pairs.sweep import Sweep, sweep_pairs
from evaluation.pairs.threshold_levels import count_accepted_per_class
from evaluation.pairs.worst_pairs import WorstPairs

FARS = ("0.1", "0.01", "0.001")
MOST_GROUPS = 200
WORST = 20


def diagnose(
    items: EmbeddingSet,
    *,
    gallery: EmbeddingSet | None = None,
    training: EmbeddingSet | None = None,
    exclude_same: ExcludeSame = None,
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
        items, gallery, exclude_same, scorer: as in ``evaluate_embeddings``.
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
    values = {column: _read_column(items, column) for column in columns}
    sweep = sweep_pairs(pairs, deepest_far=0.1, per_query=True, track=track)
    assert sweep.ranks is not None
    thresholds = _find_thresholds(sweep)
    reasons: list[str] = []
    rows = _GroupRows(pairs, sweep.ranks, thresholds)
    groups = rows.build_classes()
    for column, texts in values.items():
        for value in np.unique(texts):
            group = rows.build_group(column, str(value), texts[pairs.a.rows] == value)
            groups.append(group)
            if not group.impostor_pairs:
                reasons.append(f"The group {column} = {value} has no impostor pair, so it has no FAR.")
            if not group.genuine_pairs:
                reasons.append(f"The group {column} = {value} has no genuine pair, so it has no FRR.")
    if training is None:
        reasons.append("Utilization needs the embeddings of the training set.")
    references = items if gallery is None else gallery
    genuine, impostor = _select_hardest(sweep, worst)
    return Diagnosis(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=hash_items(items),
        split=split,
        score=pairs.scorer.score,
        reasons=reasons,
        thresholds=thresholds,
        groups=groups,
        spread=measure_class_spread(items),
        neural_collapse=compute_neural_collapse(items),
        utilization=None if training is None else compute_utilization(items, training),
        reliability=_build_reliability(pairs, probability) if probability and pairs.symmetric else None,
        hardest_genuine=genuine.name_pairs(pairs, items, references),
        hardest_impostor=impostor.name_pairs(pairs, items, references),
    )


class _GroupRows:
    """The rows of groups: rates of their pairs, and means over their queries.

    Ranks and identification are per row of ``a``, NaN for queries that have no such figure.
    """

    def __init__(self, pairs: Pairs, ranks: Ranks, thresholds: Thresholds) -> None:
        self.pairs, self.thresholds = pairs, thresholds
        known, has_impostor = ranks.n_partners > 0, np.isfinite(ranks.best)
        self.ranks = {
            "recall_at_1": np.where(known, ranks.first_rank == 1, np.nan),
            "r_precision": ranks.r_precision,
            "map_at_r": ranks.map_at_r,
        }
        best = np.maximum(ranks.best_partner, ranks.best)
        self.fnir, self.fpir = {}, {}
        for key, threshold in thresholds.fpir.items():
            missed = ~(ranks.right & accepts(best, threshold))
            self.fnir[key] = np.where(known, missed, np.nan)
            self.fpir[key] = np.where(has_impostor, accepts(ranks.best, threshold), np.nan)

    def build_classes(self) -> list[GroupDiagnosis]:
        """A row for each class."""
        pairs, rows = self.pairs, []
        genuine, impostor = count_accepted_per_class(pairs, list(self.thresholds.far.values()))
        for code, label in enumerate(pairs.classes):
            members = np.arange(pairs.a.starts[code], pairs.a.starts[code + 1])
            sizes = {"n_items": int(pairs.class_sizes[code]), "n_classes": 1}
            of_genuine = int(pairs.genuine_per_class[code]), genuine[code]
            of_impostor = int(pairs.impostor_per_class[code]), impostor[code]
            rows.append(self._build("label", str(label), sizes, of_genuine, of_impostor, members))
        return rows

    def build_group(self, column: str, value: str, members: Bools) -> GroupDiagnosis:
        """The row of the pairs among some rows of ``a``, or of these with a gallery."""
        part = self.pairs.select_rows(np.flatnonzero(members))
        genuine, impostor = count_accepted_per_class(part, list(self.thresholds.far.values()))
        sizes = {"n_items": int(members.sum()), "n_classes": len(np.unique(part.a.codes))}
        all_genuine, all_impostor = genuine.sum(axis=0), impostor.sum(axis=0) // 2
        return self._build(
            column, value, sizes, (part.n_genuine, all_genuine), (part.n_impostor, all_impostor), members
        )

    def _build(
        self,
        column: str,
        value: str,
        sizes: dict[str, int],
        genuine: tuple[int, Int64s],
        impostor: tuple[int, Int64s],
        members: NDArray[Any],
    ) -> GroupDiagnosis:
        """``genuine`` and ``impostor`` are all pairs, and those accepted at each FAR's threshold."""
        (n_genuine, kept), (n_impostor, accepted), keys = genuine, impostor, list(self.thresholds.far)
        means: dict[str, Any] = {name: _compute_mean(values[members]) for name, values in self.ranks.items()}
        return GroupDiagnosis(
            column=column,
            value=value,
            **sizes,
            genuine_pairs=n_genuine,
            impostor_pairs=n_impostor,
            far={key: _divide(int(n), n_impostor) for key, n in zip(keys, accepted, strict=True)},
            frr={key: _divide(n_genuine - int(n), n_genuine) for key, n in zip(keys, kept, strict=True)},
            fnir={key: _compute_mean(values[members]) for key, values in self.fnir.items()},
            fpir={key: _compute_mean(values[members]) for key, values in self.fpir.items()},
            **means,
        )


def _compute_mean(values: Float64s) -> float | None:
    given = values[~np.isnan(values)]
    return float(given.mean()) if len(given) else None


def _divide(part: int, total: int) -> float | None:
    return part / total if total else None


def _find_thresholds(sweep: Sweep) -> Thresholds:
    """The lowest thresholds that keep the pooled rates: just above the first score to be refused."""
    refused = sweep.find_refused_scores(FARS)
    unknown = build_trials(sweep, None).unknown
    return Thresholds(
        far={key: _step_above(score) for key, score in zip(FARS, refused, strict=True)},
        fpir={key: _step_above(find_refused_score(unknown, key)) for key in FPIRS},
    )


def _step_above(score: np.float32) -> float:
    return float(np.nextafter(max(score, np.float32(-1e30)), np.float32(np.inf)))


def _read_column(items: EmbeddingSet, column: str) -> Texts:
    values = read_group_values(items, column)
    texts = np.where(np.ma.getmaskarray(values), "missing", np.ma.getdata(values).astype(np.str_))
    if len(np.unique(texts)) > MOST_GROUPS:
        raise InputError(
            f"The column '{column}' has {len(np.unique(texts))} values, at most {MOST_GROUPS} make groups."
        )
    return texts


def _build_reliability(pairs: Pairs, probability: Probability) -> ReliabilityDiagram:
    reliability = measure_reliability(sample_labelled_pairs(pairs, 0), probability)
    used = reliability.weight > 0
    return ReliabilityDiagram(
        kind=probability.kind,
        prior=probability.prior,
        predicted=reliability.predicted[used].tolist(),
        observed=reliability.observed[used].tolist(),
        share=reliability.weight[used].tolist(),
        ece=reliability.ece,
        brier=reliability.brier,
        log_loss=reliability.log_loss,
    )


def _select_hardest(sweep: Sweep, worst: int) -> tuple[WorstPairs, WorstPairs]:
    """Genuine pairs of the lowest and impostor pairs of the highest scores."""
    genuine, impostor = WorstPairs(worst, lowest=True), WorstPairs(worst)
    for part in sweep.pairs.iterate_genuine():
        genuine.add(part.a, part.b, part.scores)
    for chunk in sweep.top.chunks:
        impostor.add(*chunk)
    return genuine, impostor
