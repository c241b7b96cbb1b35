"""Recall measured while an engine is built, on a sample of its own rows as queries."""

from __future__ import annotations

import faiss
import numpy as np

from common.array_types import RowIndices, UnitVectors

SAMPLE = 512  # rows whose neighbours are looked for
NEIGHBOURS = 10
RESERVE = 0.2  # of what may be missed, kept for queries beyond the sample


def require_on_sample(recall: float) -> float:
    """What a sample must reach so that the recall holds beyond it: 0.96 for 0.95."""
    return recall + RESERVE * (1 - recall)


def spread_positions(n: int, count: int) -> RowIndices:
    """int64: ``count`` of n positions, evenly spaced; with repeats where n is smaller."""
    return np.linspace(0, n - 1, count).astype(np.int64)


class NearestNodes:
    """The exact nearest nodes of queries, collected block by block."""

    def __init__(self, queries: UnitVectors, fetch: int = NEIGHBOURS) -> None:
        self.queries = queries
        self._similarities = np.full((len(queries), fetch), -np.inf, dtype=np.float32)
        self.nodes = np.full(self._similarities.shape, -1, dtype=np.int64)
        self._seen = 0

    def add(self, block: UnitVectors) -> None:
        """Take the next block into account."""
        width = self.nodes.shape[1]
        near, nodes = faiss.knn(
            self.queries, block, min(width, len(block)), metric=faiss.METRIC_INNER_PRODUCT
        )
        near = np.concatenate([self._similarities, near], axis=1)
        nodes = np.concatenate([self.nodes, nodes + self._seen], axis=1)
        best = np.argsort(-near, axis=1, kind="stable")[:, :width]
        self._similarities = np.take_along_axis(near, best, axis=1)
        self.nodes = np.take_along_axis(nodes, best, axis=1)
        self._seen += len(block)

    def drop_own(self, own: RowIndices) -> RowIndices:
        """The nearest, int64 [q, w - 1], without each query's own node; -1 where there are fewer."""
        last = np.argsort(self.nodes == own[:, None], axis=1, kind="stable")
        return np.take_along_axis(self.nodes, last, axis=1)[:, :-1]


def compute_recall(expected: RowIndices, proposed: RowIndices) -> float:
    """The fraction of expected nodes, [q, k] with -1 where there is none, among those proposed [q, f]."""
    right = (expected[:, :, None] == proposed[:, None, :]).any(axis=2) & (expected >= 0)
    return float(right.sum() / max(1, (expected >= 0).sum()))
