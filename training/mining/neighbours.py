"""Exact nearest neighbours of every item among all items, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np

from common.array_types import Float32s, Int64s, UnitVectors

BLOCK = 4096  # queries at once
NUMBERS_AT_ONCE = 2**25  # of gathered vectors


def iterate_neighbours(vectors: UnitVectors, k: int) -> Iterator[tuple[int, Float32s, Int64s]]:
    """For each block of rows: its first row, cosines [b, k] descending and rows [b, k], itself among them."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    for start in range(0, len(vectors), BLOCK):
        scores, rows = index.search(
            np.ascontiguousarray(vectors[start : start + BLOCK]), min(k, len(vectors))
        )
        yield start, scores, rows


def iterate_cluster_mates(
    vectors: UnitVectors, clusters: int, k: int, random: np.random.Generator
) -> Iterator[tuple[int, Float32s, Int64s]]:
    """As ``iterate_neighbours``, with k items drawn evenly from each row's k-means cluster, nearest first.

    One that is drawn twice, and the row itself, have row -1.
    """
    assigned = assign_clusters(vectors, clusters)[0]
    members = np.argsort(assigned, kind="stable")
    counts = np.bincount(assigned, minlength=clusters)
    starts = np.cumsum(counts) - counts
    block = max(1, min(BLOCK, NUMBERS_AT_ONCE // (k * vectors.shape[1])))
    for start in range(0, len(vectors), block):
        own = assigned[start : start + block]
        drawn = (random.random((len(own), k)) * counts[own][:, None]).astype(np.int64)
        rows = np.sort(members[starts[own][:, None] + drawn], axis=1)
        is_double = np.zeros(rows.shape, dtype=bool)
        is_double[:, 1:] = rows[:, 1:] == rows[:, :-1]
        is_double |= rows == np.arange(start, start + len(own))[:, None]
        scores = np.einsum("bd,bkd->bk", vectors[start : start + len(own)], vectors[rows], optimize=True)
        scores[is_double], rows[is_double] = -np.inf, -1
        order = np.argsort(-scores, axis=1, kind="stable")
        yield start, np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def assign_clusters(vectors: UnitVectors, clusters: int) -> tuple[Int64s, Float32s]:
    """k-means, the same every time: the cluster of each row, int [n], and its squared distance, [n]."""
    kmeans = faiss.Kmeans(vectors.shape[1], min(clusters, len(vectors)), niter=20, seed=1)
    kmeans.cp.min_points_per_centroid = 1  # no warning for small sets
    kmeans.train(np.ascontiguousarray(vectors))
    distances, assigned = kmeans.index.search(np.ascontiguousarray(vectors), 1)
    return assigned[:, 0].astype(np.int64), np.maximum(distances[:, 0], 0)
