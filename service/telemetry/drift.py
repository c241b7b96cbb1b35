"""Domain-classifier drift of recent queries from the gallery: AUC 0.5 = none, 1 = fully shifted.

A linear classifier of recent query vectors against a sample of the gallery, scored on held-out vectors
(Rabanser et al. 2019, Failing Loudly, section 3.2; here a ridge discriminant, which has a closed form).
Queries by id are items of the gallery and do not count.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from common.array_types import Bools, Float64s, UnitVectors
from evaluation.metrics.verification import compute_auc

KEPT = 1_024  # queries
EVERY = 16  # once so many are kept, one request in 16 is sampled, since small requests notice microseconds
MIN_QUERIES = 200  # with fewer, the AUC of two equal samples strays too far from 0.5
RIDGE = 0.1  # times the mean variance of a direction


class DriftMonitor:
    """The latest query vectors, one per request, so that a large batch does not displace all others."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: UnitVectors | None = None
        self._kept = self._requests = 0
        self._last_auc: tuple[int, float] = (0, float("nan"))

    def add(self, vectors: UnitVectors) -> None:
        """Keep the first of some query vectors, float32 [q, d]; drop those of another dimension."""
        self._requests += 1  # without the lock: it does no harm if two threads are counted once
        if self._kept >= KEPT and self._requests % EVERY:
            return
        with self._lock:
            if self._rows is None or self._rows.shape[1] != vectors.shape[1]:
                self._rows = np.empty((KEPT, vectors.shape[1]), dtype=np.float32)
                self._kept = 0
            self._rows[self._kept % KEPT] = vectors[0]
            self._kept += 1

    def compute_auc(self, reference: UnitVectors) -> float:
        """The drift from a sample of the gallery, float32 [n, d]; NaN while there are too few queries."""
        with self._lock:
            kept = self._kept
            if self._rows is None or kept < MIN_QUERIES or len(reference) < MIN_QUERIES:
                return float("nan")
            if kept == self._last_auc[0]:
                return self._last_auc[1]
            recent = self._rows[: min(kept, KEPT)].copy()
        self._last_auc = (kept, compute_domain_auc(reference, recent))
        return self._last_auc[1]


def compute_domain_auc(reference: UnitVectors, recent: UnitVectors) -> float:
    """AUC of a classifier of ``recent`` [m, d] against ``reference`` [n, d], by two-fold cross-validation."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([_normalize(reference), _normalize(recent)])
    is_recent = np.arange(len(rows)) >= len(reference)
    fold = np.empty(len(rows), dtype=bool)
    for part in (is_recent, ~is_recent):
        fold[part] = rng.permutation(part.sum()) % 2 == 0
    aucs = []
    for half in (fold, ~fold):
        scores, recent_half = rows[~half] @ _fit_direction(rows[half], is_recent[half]), is_recent[~half]
        aucs.append(compute_auc(scores[recent_half], scores[~recent_half]))
    return float(np.mean(aucs))


def _normalize(rows: UnitVectors) -> Float64s:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _fit_direction(rows: Float64s, is_recent: Bools) -> Float64s:
    """Fisher's linear discriminant with a ridge."""
    means = rows[is_recent].mean(axis=0), rows[~is_recent].mean(axis=0)
    centred = rows - np.where(is_recent[:, None], *means)
    covariance = centred.T @ centred / len(rows)
    d = len(covariance)
    ridge = RIDGE * np.trace(covariance) / d + np.finfo(float).tiny
    return np.asarray(np.linalg.solve(covariance + ridge * np.eye(d), means[0] - means[1]))
