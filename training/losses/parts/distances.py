"""Distances of unit vectors with finite slopes."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12  # of squared distances: the slope of a root at 0 is infinite


def compute_unit_distances(cosine: Tensor) -> Tensor:
    """L2 distance of two unit vectors from their cosine; 0 without a slope where they coincide."""
    squared = 2 - 2 * cosine
    return torch.where(squared > FLOOR, squared.clamp(min=FLOOR).sqrt(), 0)


def compute_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared L2 distances of all rows: [n, d] and [m, d] to [n, m], never negative."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp(min=0)
