"""Search by class: the k nearest classes of each query, each with its nearest items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.array_types import Bools, Float32s, Int64s, UnitVectors
from common.errors import InputError
from index.search.gallery_view import GalleryView, RankedItems
from index.search.generation import Generation
from index.search.match_rule import select_members
from index.search.rescoring import compute_similarities

FETCHED = 4  # items fetched for each that is wanted, before all are compared
SIMILARITIES_AT_ONCE = 1 << 22  # of a block of queries with all rows
ROUNDING = 2e-5  # above the error of a float32 product of unit rows
Counting = Sequence[tuple[Generation, Bools | None]]


class _Item(NamedTuple):
    """An item as groups sort them: nearest first, ties by id."""

    distance: float  # minus the similarity
    id: str
    part: int
    row: int


def rank_groups(
    view: GalleryView,
    queries: UnitVectors,
    k: int,
    group_size: int,
    *,
    condition: Mapping[str, Any] | None = None,
    exact: bool = False,
    exclude_ids: Sequence[str | None] | None = None,
) -> RankedItems:
    """The k nearest classes of each query [q, d], each with its ``group_size`` nearest items.

    A class is as near as its nearest item. Items of one class stand together, the nearest class first. No
    class is missed because others have many items nearby: where the items fetched are of too few classes,
    all items are compared.
    """
    if isinstance(group_size, bool) or group_size < 1:
        raise InputError(f"group_size must be a whole number from 1, found {group_size!r}.")
    fetched = k if isinstance(k, bool) or k < 1 else min(FETCHED * k * group_size, max(1, len(view)))
    ranked = view.rank(queries, fetched, condition=condition, exact=exact, exclude_ids=exclude_ids)
    counting = view.select_counting(condition)
    codes = view.class_codes
    of_queries: list[list[_Item]] = []
    pending: list[int] = []
    for query, excluded in enumerate(exclude_ids or [None] * len(queries)):
        valid = np.flatnonzero(ranked.rows[query] >= 0)
        rows = ranked.rows[query][valid]
        parts = np.zeros(len(rows), dtype=np.int64) if ranked.parts is None else ranked.parts[query][valid]
        classes = codes.get_codes_of_rows(rows, parts)
        is_all = len(rows) < fetched or fetched >= len(view)
        nearest = list(dict.fromkeys(classes.tolist()))[:k]
        of_queries.append([])
        if len(nearest) < k and not is_all:
            pending.append(query)
            continue
        for code in nearest:
            at = np.flatnonzero(classes == code)[:group_size]
            if len(at) == group_size or is_all:
                similarities = ranked.similarities[query][valid[at]]
                of_queries[-1] += _name_items(view, rows[at], parts[at], similarities)
            else:
                of_queries[-1] += _find_nearest_items(
                    view, queries[query], code, group_size, counting, excluded
                )
    for query in pending:
        excluded = None if exclude_ids is None else exclude_ids[query]
        groups = [
            _find_nearest_items(view, queries[query], code, group_size, counting, excluded)
            for code in _find_nearest_classes(view, queries[query], k, counting, excluded)
        ]
        of_queries[query] = [item for group in sorted(filter(None, groups))[:k] for item in group]
    return _to_arrays(of_queries)


def _find_nearest_classes(
    view: GalleryView, query: Float32s, k: int, counting: Counting, excluded: str | None
) -> list[int]:
    """The k classes nearest to a query [d] over all items, and those that may be as near but for rounding."""
    best = np.full(len(view.class_codes), -np.inf, dtype=np.float32)
    for number, (part, counts) in enumerate(counting):
        similarities = np.empty(len(part), dtype=np.float32)
        step = max(1, SIMILARITIES_AT_ONCE // len(query))
        for start in range(0, len(part), step):
            np.dot(part.vectors[start : start + step], query, out=similarities[start : start + step])
        if counts is not None:
            similarities[~counts] = -np.inf
        row = None if excluded is None else part.items.get_row(excluded)
        if row is not None:
            similarities[row] = -np.inf
        np.maximum.at(best, view.class_codes.get_codes_of_part(number), similarities)
    k = min(k, len(best))
    limit = np.partition(best, len(best) - k)[len(best) - k] - 2 * ROUNDING
    return np.flatnonzero((best >= limit) & (best > -np.inf)).tolist()


def _find_nearest_items(
    view: GalleryView, query: Float32s, code: int, n: int, counting: Counting, excluded: str | None
) -> list[_Item]:
    """The n items of a class that are nearest to a query [d], compared with all of them."""
    labels = view.class_codes.get_labels(np.array([code]))
    found: list[_Item] = []
    for number, (part, counts) in enumerate(counting):
        rows, _ = select_members(part, labels, counts, excluded)
        similarities = compute_similarities(part.vectors, query[None], rows, rows)
        if len(rows) > n:
            least = np.partition(similarities, len(rows) - n)[len(rows) - n]
            kept = np.flatnonzero(similarities >= least)
            rows, similarities = rows[kept], similarities[kept]
        found += _name_items(view, rows, np.full(len(rows), number), similarities)
    return sorted(found)[:n]


def _name_items(view: GalleryView, rows: Int64s, parts: Int64s, similarities: Float32s) -> list[_Item]:
    columns = zip(similarities.tolist(), parts.tolist(), rows.tolist(), strict=True)
    return [_Item(-near, view.parts[part][0].items.ids[row], part, row) for near, part, row in columns]


def _to_arrays(of_queries: list[list[_Item]]) -> RankedItems:
    shape = (len(of_queries), max((len(items) for items in of_queries), default=0))
    rows, parts = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    similarities = np.full(shape, -np.inf, dtype=np.float32)
    for query, items in enumerate(of_queries):
        for place, item in enumerate(items):
            rows[query, place], parts[query, place] = item.row, item.part
            similarities[query, place] = -item.distance
    return RankedItems(rows, similarities, parts)
