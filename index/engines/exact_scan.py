"""Exact search: every row that could be among the best k, whatever the rounding of the fast product."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import faiss
import numpy as np

from common.array_types import RowIndices, UnitVectors
from common.time_budget import check_time
from index.engines.engine import Candidates

ROUNDING = 1e-5  # bound on |float32 product - kernel similarity| of unit rows
SPARE = 16
BLOCK_ROWS = 262_144

Propose = Callable[[UnitVectors, int], Candidates]


def propose_certain_top(propose: Propose, queries: UnitVectors, k: int, n: int) -> RowIndices:
    """Candidates, int64 [q, w], that hold the true top k even if similarities are off by ``ROUNDING``.

    Args:
        propose: exact top-``fetch`` search in float32: (queries, fetch) -> (similarities, rows), best first.
        queries: float32 [q, d].
        n: how many rows there are to find.
    """
    fetch = min(n, k + SPARE)
    similarities, rows = propose(queries, fetch)
    if fetch == n:
        return rows
    unsure = np.flatnonzero(similarities[:, k - 1] - similarities[:, -1] <= 2 * ROUNDING)
    if not len(unsure):
        return rows
    wider = propose_certain_top(propose, queries[unsure], fetch * 3, n)
    out = np.full((len(queries), wider.shape[1]), -1, dtype=np.int64)
    out[:, :fetch] = rows
    out[unsure] = wider
    return out


def scan_rows(
    vectors: UnitVectors, queries: UnitVectors, k: int, rows: RowIndices | None = None
) -> RowIndices:
    """Candidates for the exact top k among all rows, or ``rows``: int64 [q, w], -1 where there are fewer.

    Args:
        vectors: float32 [n, d] unit rows, may be memory-mapped.
        queries: float32 [q, d] unit rows.
        rows: int64 [m], distinct; the rows to compare with.
    """
    n = len(vectors) if rows is None else len(rows)
    if n == 0:
        return np.full((len(queries), 0), -1, dtype=np.int64)
    if rows is not None and len(queries) == 1 and vectors.flags.c_contiguous:
        return _scan_one_query(vectors, queries, k, rows)
    parts = []
    for start in range(0, n, BLOCK_ROWS):
        check_time()
        part = slice(start, start + BLOCK_ROWS)
        best = _scan_block(vectors[part] if rows is None else vectors[rows[part]], queries, k)
        parts.append(np.where(best < 0, -1, best + start if rows is None else rows[part][best]))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _scan_one_query(vectors: UnitVectors, query: UnitVectors, k: int, rows: RowIndices) -> RowIndices:
    """Rows are read where they are, which takes a third of the time of copying them first."""
    if len(rows) <= k + SPARE:
        return rows[None]
    rows = np.ascontiguousarray(rows)
    products = np.empty(len(rows), dtype=np.float32)
    faiss.fvec_inner_products_by_idx(
        *map(faiss.swig_ptr, (products, query, vectors, rows)), vectors.shape[1], 1, len(rows)
    )

    def propose(_: UnitVectors, fetch: int) -> Candidates:
        best = (
            np.argpartition(products, len(rows) - fetch)[-fetch:] if fetch < len(rows) else np.arange(fetch)
        )
        best = best[np.argsort(-products[best])]
        return products[best][None], best[None]

    return rows[propose_certain_top(propose, query, k, len(rows))]


def _scan_block(block: UnitVectors, queries: UnitVectors, k: int) -> RowIndices:
    block = np.ascontiguousarray(block)
    if len(block) <= k + SPARE:
        return np.tile(np.arange(len(block)), (len(queries), 1))

    def propose(queries: UnitVectors, fetch: int) -> Candidates:
        return cast(Candidates, faiss.knn(queries, block, fetch, metric=faiss.METRIC_INNER_PRODUCT))

    return propose_certain_top(propose, queries, k, len(block))
