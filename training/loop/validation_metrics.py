"""Metrics of an epoch, on validation classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import get_args

import numpy as np

from api_schemas.config import EvaluationConfig, Monitor
from api_schemas.report import Report
from common.array_types import RowIndices, Texts
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.sets.two_models import split_by_role
from evaluation.evaluate import evaluate_embeddings
from training.data.items import Items

CLASSES_TRIED, ITEMS_TRIED = 40, 50
_evaluate = partial(evaluate_embeddings, model_hash="", split="validation")


@dataclass(frozen=True)
class ValidationMetrics:
    """Figures of a report that ``metrics.jsonl`` keeps; None where the items cannot give the figure."""

    recall_at_1: float | None
    map_at_r: float | None
    eer: float | None
    opis: float | None
    opis_debiased: float | None

    def compute_monitored_value(self, monitor: Monitor | Mapping[Monitor, float]) -> float:
        """The monitored figure, or the weighted sum of several, signed so that higher is better.

        Raises:
            InputError: one of them is not given.
        """
        total = 0.0
        for name, weight in _get_weights(monitor).items():
            value: float | None = getattr(self, name)
            if value is None:
                raise InputError(f"evaluation.monitor: validation gave no {name}: monitor another figure.")
            total += weight * (-value if name in ("eer", "opis_debiased") else value)
        return total


def compute_validation_metrics(
    items: EmbeddingSet, exclude_same: str | None = None, role_column: str | None = None
) -> ValidationMetrics:
    """Every item queries all others, or queries the items alone, exactly; see ``evaluation.evaluate``."""
    queries, gallery = split_by_role(items, role_column)
    return _read_metrics(_evaluate(queries, gallery=gallery, exclude_same=exclude_same))


def check_measurable(items: Items, evaluation: EvaluationConfig, role_column: str | None = None) -> None:
    """Measure random vectors in place of the items' own: what these cannot give, no network's can.

    Of a large part the largest classes are tried first: what they give, all give.

    Raises:
        InputError: validation cannot be measured, or cannot give the monitored figure; says why.
    """
    if len(items) > CLASSES_TRIED * ITEMS_TRIED:
        with suppress(InputError):
            check_measurable(items.subset(_select_largest(items.labels)), evaluation, role_column)
            return
    vectors = np.random.default_rng(0).normal(size=(len(items), 8))
    random = EmbeddingSet.from_arrays(vectors, items.labels, items.ids, items.metadata, "validation")
    queries, gallery = split_by_role(random, role_column)
    report = _evaluate(queries, gallery=gallery, exclude_same=evaluation.exclude_same)
    given = asdict(_read_metrics(report))
    missing = [name for name in _get_weights(evaluation.monitor) if given[name] is None]
    if missing:
        others = [name for name in get_args(Monitor) if given[name] is not None]
        raise InputError(
            f"evaluation.monitor: validation cannot give {' and '.join(missing)}. {' '.join(report.reasons)} "
            f"Monitor {' or '.join(others)}, or validate on more items of each class."
        )


def _select_largest(labels: Texts) -> RowIndices:
    """Rows of the first items of the largest classes."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    rank = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])  # within the class
    is_large = np.isin(codes[order], np.argsort(-counts, kind="stable")[:CLASSES_TRIED])
    return np.sort(order[is_large & (rank < ITEMS_TRIED)])


def _get_weights(monitor: Monitor | Mapping[Monitor, float]) -> Mapping[Monitor, float]:
    return {monitor: 1.0} if isinstance(monitor, str) else monitor


def _read_metrics(report: Report) -> ValidationMetrics:
    return ValidationMetrics(
        recall_at_1=report.retrieval.recall_at_1,
        map_at_r=report.retrieval.map_at_r,
        eer=report.verification.eer,
        opis=report.consistency.opis,
        opis_debiased=report.consistency.opis_debiased,
    )
