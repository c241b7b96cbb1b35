"""Do queries still look like the gallery? Told apart by a classifier: AUC 0.5 is alike, 1 another world.

A linear classifier that tells recent query vectors from a sample of the gallery, scored on what it was not
fitted on (the domain classifier of Rabanser et al. 2019, Failing Loudly, section 3.2, here a ridge
discriminant, which is solved at once). Queries by id are items and do not count.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from common.array_types import Bools, Float64s, UnitVectors

KEPT = 1_024  # queries
EVERY = 16  # of them one is taken once so many are kept: a small request feels each microsecond
FEWEST = 200  # below it an AUC of two equal samples strays too far from 0.5
RIDGE = 0.1  # of the mean variance of a direction


class DriftMonitor:
    """The last vectors that were asked for, one of each request: no client fills the memory with a batch."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: UnitVectors | None = None
        self._seen = self._asked = 0
        self._told: tuple[int, float] = (0, float("nan"))

    def note(self, vectors: UnitVectors) -> None:
        """Remember the first of some query vectors, float32 [q, d]; forget those of another dimension."""
        self._asked += 1  # unguarded: that threads now and then count as one does no harm
        if self._seen >= KEPT and self._asked % EVERY:
            return
        with self._lock:
            if self._rows is None or self._rows.shape[1] != vectors.shape[1]:
                self._rows = np.empty((KEPT, vectors.shape[1]), dtype=np.float32)
                self._seen = 0
            self._rows[self._seen % KEPT] = vectors[0]
            self._seen += 1

    def auc(self, reference: UnitVectors) -> float:
        """Of recent queries against a sample of the gallery, float32 [n, d]; NaN while there are too few."""
        with self._lock:
            seen = self._seen
            if self._rows is None or seen < FEWEST or len(reference) < FEWEST:
                return float("nan")
            if seen == self._told[0]:
                return self._told[1]
            recent = self._rows[: min(seen, KEPT)].copy()
        self._told = (seen, apart(reference, recent))
        return self._told[1]


def apart(reference: UnitVectors, recent: UnitVectors) -> float:
    """AUC of telling ``recent`` [m, d] from ``reference`` [n, d], fitted on one half, scored on the other."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([unit(reference), unit(recent)])
    new = np.arange(len(rows)) >= len(reference)
    fold = np.empty(len(rows), dtype=bool)
    for side in (new, ~new):
        fold[side] = rng.permutation(side.sum()) % 2 == 0
    return float(
        np.mean([_auc(rows[~half] @ _direction(rows[half], new[half]), new[~half]) for half in (fold, ~fold)])
    )


def unit(rows: UnitVectors) -> Float64s:
    """Float64 rows of length one."""
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _direction(rows: Float64s, new: Bools) -> Float64s:
    """Fisher's discriminant with a ridge."""
    means = rows[new].mean(axis=0), rows[~new].mean(axis=0)
    centred = rows - np.where(new[:, None], *means)
    covariance = centred.T @ centred / len(rows)
    d = len(covariance)
    ridge = RIDGE * np.trace(covariance) / d + np.finfo(float).tiny
    return np.asarray(np.linalg.solve(covariance + ridge * np.eye(d), means[0] - means[1]))


def _auc(scores: Float64s, new: Bools) -> float:
    """Share of pairs (new, old) in which the new one scores higher; ties count half."""
    old = np.sort(scores[~new])
    below = np.searchsorted(old, scores[new], side="left") + np.searchsorted(old, scores[new], side="right")
    return float(below.mean() / (2 * len(old)))
