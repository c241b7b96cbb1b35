"""Queries against items, where these have roles: what thresholds and reports are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api_schemas.build_config import CalibrationConfig
from api_schemas.report import Report
from api_schemas.tradeoff import Tradeoff
from common.errors import ConfigError
from common.progress import Track
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.sets.two_models import exclude_own_model, join_models, split_by_role
from evaluation.evaluate import evaluate_embeddings
from limen.pipeline.evaluation_source import EvaluationSource
from limen.pipeline.point_options import PointOptions


def check_role_options(options: PointOptions) -> None:
    """Raises ConfigError for what thresholds between queries and items leave no room for."""
    for flag in options.list_flags_of_one_set():
        raise ConfigError(
            f"{flag}: does not go with data.role_column, by which queries are no items: leave it out."
        )


def check_no_roles(source: EvaluationSource, what: str) -> None:
    """Raises ConfigError for a run whose items are not all compared with all."""
    if source.role_column is not None:
        raise ConfigError(
            f"{what} compares all items with all, and this run's have roles (data.role_column): `limen "
            "evaluate` compares its queries with its items."
        )


def compare_roles(
    source: EvaluationSource, calibration: CalibrationConfig
) -> tuple[EvaluationSource, CalibrationConfig]:
    """A run's items so that queries are compared with items alone, and how points are chosen then."""
    exclude_same = exclude_own_model(calibration.exclude_same)
    changes = {"exclude_same": exclude_same, "score": "cosine", "aggregate": "nearest"}
    joined = replace(
        source,
        items=_join(source.items, source.role_column),
        validation=None if source.validation is None else _join(source.validation, source.role_column),
        training=None,
        role_column=None,
    )
    return joined, calibration.model_copy(update=changes)


def select_gallery(source: EvaluationSource) -> EmbeddingSet:
    """The items of all parts of a run, without its queries."""
    _, gallery = split_by_role(source.collect_everything(), source.role_column)
    assert gallery is not None
    return gallery


def measure_between_roles(source: EvaluationSource, tradeoffs: Sequence[Tradeoff], track: Track) -> Report:
    """Test queries against test items."""
    queries, gallery = split_by_role(source.items, source.role_column)
    report = evaluate_embeddings(
        queries, gallery=gallery, model_hash=source.model_hash, split=source.split, track=track
    )
    return report.model_copy(update={"tradeoffs": list(tradeoffs)})


def _join(items: EmbeddingSet, column: str | None) -> EmbeddingSet:
    queries, gallery = split_by_role(items, column)
    assert gallery is not None
    return join_models(queries, gallery)
