"""All-gather of the batches of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def gather_batch(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [n, d] and labels [n] of all processes, by rank; the same tensors in a single process.

    The gradient of the gathered embeddings reaches each process's own, multiplied by the number of processes;
    gradients of a loss's parameters are those of the whole batch. So averaging over processes gives in both
    cases the gradient of one process with the whole batch, as long as random draws are the same in all.

    Reference implementation: the library's wrapper multiplies the loss, so the gradients of proxies come out
    too large by the number of processes, and it needs batches of equal size.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return embeddings, labels
    sizes = _gather_sizes(len(embeddings), embeddings.device)
    gathered: Tensor = _GatherWithGradient.apply(embeddings, sizes)  # type: ignore[no-untyped-call]
    return gathered, _gather_rows(labels, sizes)


class _GatherWithGradient(torch.autograd.Function):
    """Rows of all processes; backwards, this process's rows times the number of processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        context.sizes = sizes
        return _gather_rows(rows, sizes)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rank, sizes = dist.get_rank(), context.sizes
        start = sum(sizes[:rank])
        return gradients[0][start : start + sizes[rank]] * len(sizes), None


def _gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Rows of all processes in the order of their ranks; smaller batches are padded on the way."""
    padded = rows.detach().new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _gather_sizes(n: int, device: torch.device) -> list[int]:
    own = torch.tensor([n], device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]
