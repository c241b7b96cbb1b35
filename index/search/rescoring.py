"""Candidates re-scored by the one similarity kernel, from the stored float32 rows, and put in order."""

from __future__ import annotations

from dataclasses import dataclass
from threading import local

import numpy as np

from common.array_types import Float32s, Int32s, RowIndices, UnitVectors
from common.time_budget import check_time
from embeddings.similarity import compute_pair_similarities

PAIR_NUMBERS = 8_192  # re-scored at a time: within the cache, and without allocating new pages


class _Spent(local):
    seconds = 0.0


SPENT = _Spent()
"""Seconds that the present thread has spent on re-scoring since they were last taken, for monitoring."""


def take_seconds_spent() -> float:
    """Seconds of re-scoring since the last call in this thread."""
    seconds, SPENT.seconds = SPENT.seconds, 0.0
    return seconds


@dataclass(frozen=True, eq=False)
class RankedRows:
    """The best rows of each query.

    ``rows`` int64 [q, w] and ``similarities`` float32 [q, w], by falling similarity, ties by id;
    -1 and -inf past the end, which a single query's rows do not have.
    """

    rows: RowIndices
    similarities: Float32s


def rescore(
    vectors: UnitVectors, rank: Int32s, queries: UnitVectors, candidates: RowIndices, k: int
) -> RankedRows:
    """Candidates, int64 [q, w], -1 where there is none, by falling similarity, ties by rank, cut to k."""
    if not candidates.size:
        return RankedRows(candidates, np.empty(candidates.shape, dtype=np.float32))
    if len(queries) == 1:
        rows = candidates[0]
        if rows.min() < 0:
            rows = rows[rows >= 0]
        near = compute_similarities(vectors, queries, rows, rows)
        order = np.lexsort((rank[rows], -near))[:k]
        return RankedRows(rows[order][None], near[order][None])
    if candidates.min() >= 0:
        which = np.repeat(np.arange(len(queries)), candidates.shape[1])
        near = compute_similarities(vectors, queries, which, candidates.ravel()).reshape(candidates.shape)
    else:
        valid = candidates >= 0
        near = np.full(candidates.shape, -np.inf, dtype=np.float32)
        which = np.repeat(np.arange(len(queries)), valid.sum(axis=1))
        near[valid] = compute_similarities(vectors, queries, which, candidates[valid])
    order = np.lexsort((rank[candidates], -near))[:, :k]
    query = np.arange(len(queries))[:, None]
    return RankedRows(candidates[query, order], near[query, order])


def compute_similarities(
    vectors: UnitVectors, queries: UnitVectors, which: RowIndices, rows: RowIndices
) -> Float32s:
    """Float32 [m]: the kernel's similarity of ``queries[which[i]]`` and ``vectors[rows[i]]``.

    One query alone is compared with all ``rows``, whatever ``which`` says.
    """
    step = max(1, PAIR_NUMBERS // queries.shape[1])
    if len(queries) == 1 and len(rows) <= step:
        return compute_pair_similarities(queries, vectors.take(rows, axis=0))
    out = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        check_time()
        part = slice(start, start + step)
        left = queries if len(queries) == 1 else queries.take(which[part], axis=0)
        out[part] = compute_pair_similarities(left, vectors.take(rows[part], axis=0))
    return out
