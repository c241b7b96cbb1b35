"""Masks of the positive and negative pairs of a batch, distances, and sums that stay finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-12  # of squared distances: the slope of a root at 0 is infinite


def build_pair_masks(
    labels: Tensor, ref_labels: Tensor, indices: tuple[Tensor, ...] | None, same_items: bool
) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs of items (rows) and references (columns).

    Args:
        labels: int [n]; compared as integers, so labels beyond 2^24 stay apart.
        ref_labels: int [m].
        indices: triplets or pairs that a miner selected; all pairs when None.
        same_items: the references are the items, so the diagonal is no pair.

    Returns:
        Two bool [n, m].
    """
    if indices is None:
        positive = labels[:, None] == ref_labels[None, :]
        negative = ~positive
        if same_items:
            positive.fill_diagonal_(False)
        return positive, negative
    positive = torch.zeros(len(labels), len(ref_labels), dtype=torch.bool, device=labels.device)
    negative = positive.clone()
    positive[indices[0], indices[1]] = True
    negative[indices[-2] if len(indices) == 4 else indices[0], indices[-1]] = True
    return positive, negative


def compute_masked_logsumexp(values: Tensor, keep: Tensor, dim: int, *, with_one: bool = False) -> Tensor:
    """``log(sum exp)`` over the kept entries, or ``log(1 + sum exp)``; finite also where nothing is kept.

    Without ``with_one`` an empty sum is the lowest finite number, whose gradient is zero.
    """
    total = torch.logsumexp(values.masked_fill(~keep, torch.finfo(values.dtype).min), dim=dim)
    return torch.logaddexp(total, torch.zeros_like(total)) if with_one else total


def compute_masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the kept entries; 0 when there is none."""
    return torch.where(keep, values, 0).sum() / keep.sum().clamp(min=1)


def compute_soft_logsumexp(
    exponents: Tensor, weights: Tensor, keep: Tensor, *, with_one: bool = False
) -> Tensor:
    """``log(sum_v weight_v * exp(exponent_v))`` per row, over kept entries of positive weight.

    Args:
        exponents, weights: float [n, v], weights in [0, 1].
        keep: bool [n, v].
    """
    tiny = torch.finfo(weights.dtype).tiny
    return compute_masked_logsumexp(
        exponents + weights.clamp(min=tiny).log(), keep & (weights > 0), dim=1, with_one=with_one
    )


def compute_unit_distances(cosine: Tensor) -> Tensor:
    """L2 distance of two unit vectors from their cosine; 0 without a slope where they coincide."""
    squared = 2 - 2 * cosine
    return torch.where(squared > FLOOR, squared.clamp(min=FLOOR).sqrt(), 0)


def compute_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared L2 distances of all rows: [n, d] and [m, d] to [n, m], never negative."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T).clamp(min=0)


def select_quantile(values: Tensor, fraction: float, otherwise: Tensor) -> Tensor:
    """The smallest value that so large a fraction of them does not exceed; ``otherwise`` for none."""
    if not len(values):
        return otherwise
    return values.kthvalue(max(1, math.ceil(fraction * len(values)))).values
