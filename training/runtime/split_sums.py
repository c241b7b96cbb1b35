"""Sums over processes that each hold a part of what is summed over, with gradients; no-ops for one process.

A loss over class vectors that are split over processes is computed in all of them from the whole batch: each
adds its own classes' part, and all have the same loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def count_processes() -> tuple[int, int]:
    """Rank of this process and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def spread_over_processes(values: Tensor) -> Tensor:
    """The same values, which all processes have; backwards, the sum of the gradients of all processes."""
    if count_processes()[1] == 1:
        return values
    spread: Tensor = _Spread.apply(values)  # type: ignore[no-untyped-call]
    return spread


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's values; backwards, the gradient of the sum goes to each."""
    if count_processes()[1] == 1:
        return values
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


def compute_max_over_processes(values: Tensor) -> Tensor:
    """The largest of every process's values, without gradient."""
    largest = values.detach().clone()
    if count_processes()[1] > 1:
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient
