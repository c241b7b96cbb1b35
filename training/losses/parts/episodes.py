"""Episodes: which items of a batch are the support and which the queries."""

from __future__ import annotations

import torch
from torch import Tensor


def in_support(labels: Tensor, shots: int) -> Tensor:
    """Whether an item is among the first ``shots`` of its class in the batch; int [n] to bool [n].

    The ``episodic`` sampler gives the items of a class in random order, so the support is a random choice.
    """
    order = torch.argsort(labels, stable=True)
    _, counts = torch.unique_consecutive(labels[order], return_counts=True)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(labels), device=labels.device) - starts
    return place < shots
