"""Masks of the positive and negative pairs of a batch, and sums over them that stay finite."""

from __future__ import annotations

import torch
from torch import Tensor


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


def compute_item_weights(n: int, indices: tuple[Tensor, ...] | None, like: Tensor) -> Tensor:
    """Float [n]: how often a miner selected each item, by its largest count; ones without a miner.

    Losses over class vectors have no pairs to restrict; this is how the library lets miners act on them.
    """
    if indices is None or all(len(rows) == 0 for rows in indices):
        return torch.ones(n, dtype=like.dtype, device=like.device)
    counts = torch.bincount(torch.cat([rows.to(like.device) for rows in indices]), minlength=n)
    return counts.to(like.dtype) / counts.max()


def masked_logsumexp(values: Tensor, keep: Tensor, dim: int, *, with_one: bool = False) -> Tensor:
    """``log(sum exp)`` over the kept entries, or ``log(1 + sum exp)``; finite also where nothing is kept.

    Without ``with_one`` an empty sum is the lowest finite number, whose gradient is zero.
    """
    total = torch.logsumexp(values.masked_fill(~keep, torch.finfo(values.dtype).min), dim=dim)
    return torch.logaddexp(total, torch.zeros_like(total)) if with_one else total


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the kept entries; 0 when there is none."""
    return torch.where(keep, values, 0).sum() / keep.sum().clamp(min=1)


def soft_logsumexp(exponents: Tensor, weights: Tensor, keep: Tensor, *, with_one: bool = False) -> Tensor:
    """``log(sum_v weight_v * exp(exponent_v))`` per row, over kept entries of positive weight.

    Args:
        exponents, weights: float [n, v], weights in [0, 1].
        keep: bool [n, v].
    """
    tiny = torch.finfo(weights.dtype).tiny
    return masked_logsumexp(
        exponents + weights.clamp(min=tiny).log(), keep & (weights > 0), dim=1, with_one=with_one
    )
