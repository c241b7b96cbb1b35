"""Corrections applied to a match: a query that is not of a class is never answered with it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from api_schemas.http.decisions import MatchOptions
from common.array_types import Float32s
from decision.decider import MatchDecision
from embeddings.fingerprints import compute_fingerprints
from index.gallery.corrections import Corrections
from service.http.resolve_references import ResolvedQueries
from service.models.loaded_model import LoadedModel

Fingerprints = Sequence[str | None]


def identify_queries(model: LoadedModel, queries: ResolvedQueries) -> Fingerprints:
    """The fingerprint of each query, several vectors of one by their mean; None for a read-only gallery."""
    if model.live is None:
        return [None] * len(queries.ids)
    vectors = queries.vectors
    if queries.sizes is not None:
        vectors = compute_mean_rows(vectors, queries.sizes)
    return compute_fingerprints(vectors)


def compute_mean_rows(vectors: Float32s, sizes: Sequence[int]) -> Float32s:
    """float32 [q, d]: the mean of each query's consecutive rows."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    means: Float32s = (sums / np.array(sizes)[:, None]).astype(np.float32)
    return means


def obey_corrections(
    model: LoadedModel,
    queries: ResolvedQueries,
    fingerprints: Fingerprints,
    options: MatchOptions,
    decisions: list[MatchDecision],
    match: Callable[[ResolvedQueries, Mapping[str, Any]], list[MatchDecision]],
) -> list[MatchDecision]:
    """The decisions, those on corrected queries made again without the classes that they are not of.

    Args:
        match: the decisions on queries, given queries and a filter.
    """
    corrections = Corrections() if model.live is None else model.live.corrections
    if not len(corrections):
        return decisions
    obeyed = list(decisions)
    for number, (decision, item_id, fingerprint) in enumerate(
        zip(decisions, queries.ids, fingerprints, strict=True)
    ):
        named = {candidate.label for candidate in decision.candidates} & corrections.labels
        if named and fingerprint is not None:
            excluded = corrections.find_excluded(item_id, fingerprint)
            if named & excluded:
                condition: dict[str, Any] = {"label": {"$nin": sorted(excluded)}}
                if options.filter:
                    condition = {"$and": [dict(options.filter), condition]}
                (obeyed[number],) = match(_select_query(queries, number), condition)
    return obeyed


def _select_query(queries: ResolvedQueries, number: int) -> ResolvedQueries:
    """One of the queries."""
    if queries.sizes is None:
        rows = queries.vectors[number : number + 1]
        return ResolvedQueries(rows, [queries.ids[number]])
    start, end = list(pairwise([0, *np.cumsum(queries.sizes).tolist()]))[number]
    return ResolvedQueries(queries.vectors[start:end], [queries.ids[number]], [end - start])
