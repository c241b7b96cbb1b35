"""Rates of one threshold by group: sites, cameras, ages, languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from api_schemas.report import GroupRates
from common.array_types import Bools
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.threshold_rates import LEAST_RESAMPLED, MeasuredThreshold
from evaluation.metrics.opis import OpisSettings, measure_consistency, select_scored
from evaluation.pairs.group_column import list_groups, read_group_column
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import sweep_pairs


def measure_groups(
    measured: MeasuredThreshold,
    items: EmbeddingSet,
    columns: Sequence[str],
    unknown: EmbeddingSet | None = None,
) -> list[GroupRates]:
    """A row for every value of every column, worst FPIR (or FAR) of a column first.

    Args:
        items, unknown: the sets that ``measured`` was prepared from; unknown queries count in a group where
            they have the column, and in every group where they have not.

    Raises:
        InputError: a column that is not in the data, or is empty in many rows.
    """
    rows: list[GroupRates] = []
    for column in columns:
        texts = read_group_column(items, column)[measured.pairs.a.rows]
        of_unknown = None
        if unknown is not None and column in unknown.metadata and measured.strangers is not None:
            # trials of unknown queries are in the order of their classes, as pairs are
            of_unknown = read_group_column(unknown, column)[measured.stranger_rows]
        values = list_groups(texts)
        groups = [
            _measure_group(
                measured, column, value, texts == value, None if of_unknown is None else of_unknown == value
            )
            for value in measured.track(values, f"groups of {column}", len(values))
        ]
        rows += sorted(groups, key=lambda group: -max(group.fpir or 0.0, group.far or 0.0))
    return rows


def _measure_group(
    measured: MeasuredThreshold, column: str, value: str, members: Bools, strangers: Bools | None
) -> GroupRates:
    rows = np.flatnonzero(members)
    group = measured.select_rows(rows, None if strangers is None else np.flatnonzero(strangers))
    n_classes = len(np.unique(group.pairs.a.codes))
    opis, interval, reason = None, None, None
    if measured.is_of_pairs:
        opis, interval, reason = _measure_opis(group.pairs)
    if n_classes < LEAST_RESAMPLED:
        reason = (
            f"{n_classes} class{'es are' if n_classes != 1 else ' is'} too few for intervals, and what is "
            f"measured may be chance: at least {LEAST_RESAMPLED} are needed, better 20."
        )
    return GroupRates(
        column=column,
        value=value,
        n_items=len(rows),
        n_classes=n_classes,
        threshold=measured.threshold,
        opis=opis,
        opis_ci=interval,
        reason=reason,
        **group.measure().model_dump(),
    )


def _measure_opis(pairs: Pairs) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """OPIS of some pairs, debiased where classes have enough items; its interval; why it is missing."""
    if len(select_scored(pairs)) < 2:
        return None, None, "OPIS needs two classes with a genuine and an impostor pair in the group."
    consistency, _ = measure_consistency(sweep_pairs(pairs), OpisSettings(), seed=0)
    value = consistency.opis if consistency.opis_debiased is None else consistency.opis_debiased
    return value, consistency.opis_ci, None
