"""Sensitivity sampling: a small sample of items that stands for all of them, to label or to train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.array_types import Float32s, Float64s, RowIndices, UnitVectors
from training.mining.neighbours import assign_clusters


@dataclass(frozen=True)
class Sample:
    """Items in the order of the data.

    Attributes:
        rows: int [m], distinct. weights: float [m], which sum to about 1: the weighted sum of a figure over
            the sample estimates its mean over all items.
    """

    rows: RowIndices
    weights: Float64s


def sample_by_sensitivity(
    vectors: UnitVectors,
    count: int,
    clusters: int,
    losses: Float32s | None = None,
    distance_weight: float = 1.0,
    seed: int = 0,
) -> Sample:
    """Draw items with chances that follow how much they may change the mean loss.

    Axiotis et al., ICML 2024, arXiv 2402.17327: after k-means the chance of an item is proportional to the
    loss of its cluster plus ``distance_weight`` times its squared distance from the centre. Without losses
    all clusters count the same: ``1 / (k |cluster|)``, and the distances their share of all distances.

    Args:
        count: draws; an item that is drawn twice is one of the sample, with the weight of both.
        losses: float [n], e.g. of a model as it is now; each cluster has the mean of its items'.
    """
    assigned, distances = assign_clusters(vectors, clusters)
    counts = np.bincount(assigned)
    spread = distances.astype(np.float64)
    if losses is None:
        base = 1 / ((counts > 0).sum() * counts[assigned])
        spread = distance_weight * spread / max(float(spread.sum()), 1e-12)
    else:
        base = (np.bincount(assigned, weights=losses) / np.maximum(counts, 1))[assigned]
        spread = distance_weight * spread
    chances = base + spread
    chances = chances / chances.sum()
    drawn = np.random.default_rng(seed).choice(len(vectors), size=count, p=chances)
    rows, times = np.unique(drawn, return_counts=True)
    return Sample(rows, times / (count * len(vectors) * chances[rows]))
