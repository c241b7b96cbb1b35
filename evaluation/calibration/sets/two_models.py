"""Queries of one model against a gallery of another, or queries against items of other roles, in one set.

Pairs of two vectors of one model are left out, and those of an item with itself; what remains is exactly the
pairs of a query with the gallery. Of a search the rows of the query's model alone are queries.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.array_types import Bools
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet, concatenate
from evaluation.pairs.copies import group_shared_items
from evaluation.pairs.exclusions import ExcludeSame, list_exclusions

MODEL, ITEM = "(model)", "(item)"
QUERY, GALLERY = "query", "gallery"


def join_models(queries: EmbeddingSet, gallery: EmbeddingSet) -> EmbeddingSet:
    """Items by the model of the queries and by that of the gallery, to be compared with each other alone.

    Raises:
        InputError: vectors of different lengths.
    """
    if queries.dimension != gallery.dimension:
        raise InputError(
            f"The model of the queries makes vectors of {queries.dimension} numbers, the gallery's have "
            f"{gallery.dimension}: train the new model with model.embedding_dim={gallery.dimension}."
        )
    return concatenate([_mark(queries, QUERY), _mark(gallery, GALLERY)])


def split_by_role(items: EmbeddingSet, column: str | None) -> tuple[EmbeddingSet, EmbeddingSet | None]:
    """The queries and the items of a gallery, by a column of roles; all and None without a column.

    Queries with the very vector of an item are left out: they would be taken for that item, with which
    nothing compares them, and so for queries of no class in the gallery.
    """
    if column is None:
        return items, None
    asks = np.asarray(items.metadata[column]) == QUERY
    queries, gallery = items.subset(np.flatnonzero(asks)), items.subset(np.flatnonzero(~asks))
    shared = group_shared_items(queries, gallery)
    if shared is not None:
        queries = queries.subset(np.flatnonzero(~np.isin(*shared)))
    return queries, gallery


def exclude_own_model(exclude_same: ExcludeSame) -> list[str]:
    """The exclusions of a set of two models, with those of the items themselves."""
    return [MODEL, ITEM, *list_exclusions(exclude_same)]


def find_queries(items: EmbeddingSet, exclude_same: ExcludeSame) -> Bools | None:
    """bool [n]: which items are queries in a set of two models; None for other sets."""
    if MODEL not in items.metadata or MODEL not in list_exclusions(exclude_same):
        return None
    return np.asarray(items.metadata[MODEL] == QUERY)


def _mark(items: EmbeddingSet, model: str) -> EmbeddingSet:
    columns = {**items.metadata, MODEL: np.full(len(items), model), ITEM: items.ids}
    return replace(items, ids=np.char.add(f"{model} ", items.ids), metadata=columns)
