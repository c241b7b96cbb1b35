"""The nearest kept queries to a query: was this one here before?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.array_types import UnitVectors
from embeddings.similarity import compute_pair_similarities
from index.gallery.overlay import collect_items
from index.items.columns import ColumnKind
from index.items.filters import select_rows
from index.items.item_table import ItemTable
from index.items.stored_item import StoredItem
from index.store.kept_queries import KeptQuery, PoolFilter
from service.models.loaded_model import LoadedModel
from service.unknowns.pool_fields import select_fitting

SCANNED_AT_ONCE = 1_000
MOST_SCANNED = 50_000  # kept queries that one page of a filter looks at


class PoolHit(NamedTuple):
    """A kept query that was found, and what the active 1:1 point says of it; None without one."""

    query: KeptQuery
    similarity: float
    score: float | None
    same: bool | None


def search_pool(model: LoadedModel, vectors: UnitVectors, k: int, which: PoolFilter) -> list[list[PoolHit]]:
    """The k nearest kept queries of each of [q, d] unit rows, the most similar first, ties newest first."""
    found: list[list[tuple[float, str, KeptQuery, UnitVectors]]] = [[] for _ in vectors]
    for queries, rows in model.get_live_gallery().unknowns.iterate(which):
        products = vectors @ rows.T
        chosen = np.argpartition(-products, k - 1, axis=1)[:, :k] if len(rows) > k else None
        for number, vector in enumerate(vectors):
            at = np.arange(len(rows)) if chosen is None else chosen[number]
            exact = compute_pair_similarities(vector[None], rows[at]).tolist()
            entries = zip(exact, at.tolist(), strict=True)
            found[number] += [(near, queries[row].id, queries[row], rows[row]) for near, row in entries]
            found[number].sort(key=lambda entry: entry[:2], reverse=True)
            del found[number][k:]
    return [_judge(model, vector, entries) for vector, entries in zip(vectors, found, strict=True)]


def _judge(
    model: LoadedModel, vector: UnitVectors, entries: Sequence[tuple[float, str, KeptQuery, UnitVectors]]
) -> list[PoolHit]:
    if model.active_verify is None or not entries:
        return [PoolHit(query, similarity, None, None) for similarity, _, query, _ in entries]
    rows = np.stack([row for *_, row in entries])
    decisions = model.gallery.verify(np.repeat(vector[None], len(rows), axis=0), rows)
    return [
        PoolHit(query, similarity, decided.score, decided.decision == "match")
        for (similarity, _, query, _), decided in zip(entries, decisions, strict=True)
    ]


def page_pool(
    model: LoadedModel,
    which: PoolFilter,
    condition: Mapping[str, Any] | None,
    kinds: Mapping[str, ColumnKind],
    limit: int,
) -> tuple[list[KeptQuery], str | None]:
    """A page of kept queries, newest first, and where the next one begins; None on the last.

    Args:
        condition: a filter over the metadata of queries, and over ``label``, that of the best candidate.
        kinds: of the metadata fields.
    """
    if condition is None:
        queries = model.get_live_gallery().unknowns.page(which, limit + 1)
        return queries[:limit], queries[limit - 1].id if len(queries) > limit else None
    found: list[KeptQuery] = []
    scanned = 0
    for block in _iterate_pages(model, which):
        matching = select_matching(block, condition, kinds)
        found += matching[: limit - len(found)]
        scanned += len(block)
        if len(found) == limit:
            return found, found[-1].id
        if scanned >= MOST_SCANNED:
            return found, block[-1].id
    return found, None


def list_matching(
    model: LoadedModel, which: PoolFilter, condition: Mapping[str, Any], kinds: Mapping[str, ColumnKind]
) -> list[str]:
    """The ids of all kept queries that a filter holds for."""
    pages = _iterate_pages(model, which)
    return [query.id for block in pages for query in select_matching(block, condition, kinds)]


def select_matching(
    queries: Sequence[KeptQuery], condition: Mapping[str, Any], kinds: Mapping[str, ColumnKind]
) -> list[KeptQuery]:
    """The kept queries that a filter holds for."""
    anything = np.ones(1, dtype=np.float32)
    # two processes may have kept the first values of a field at once, of different kinds
    fitting = [select_fitting(query.metadata, kinds, keep_new=True) for query in queries]
    items = [
        StoredItem(query.id, query.label or "", anything, metadata)
        for query, metadata in zip(queries, fitting, strict=True)
    ]
    columns = collect_items([items], len(items), 1, fields=kinds)
    table = ItemTable.from_set(columns, np.arange(len(items)), np.zeros(len(items), dtype=bool))
    return [queries[row] for row in select_rows(condition, table, kinds).tolist()]


def _iterate_pages(model: LoadedModel, which: PoolFilter) -> Iterator[list[KeptQuery]]:
    unknowns = model.get_live_gallery().unknowns
    while block := unknowns.page(which, SCANNED_AT_ONCE):
        yield block
        which = which._replace(before=block[-1].id)
