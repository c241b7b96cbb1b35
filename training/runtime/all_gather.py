"""One loss over the batches of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class GatheredLoss(nn.Module):
    """Every process computes the loss of the joined batch; its gradient reaches its own embeddings.

    Embedding gradients come multiplied by the number of processes, and gradients of the loss's own parameters
    are those of the whole batch, so that averaging over processes (as DistributedDataParallel does) gives in
    both cases the gradient of one process with the joined batch. Draws of random numbers are the same in all
    processes. In one process it is the loss itself.

    In released code: the library's wrapper multiplies the loss, so the gradients of proxies come out too
    large by the number of processes, it warns in a single process, and it wants batches of equal size.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Float [n, d] and int [n] of this process to the loss of all of them."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            value: Tensor = self.loss(embeddings, labels)
            return value
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_common_seed(embeddings.device))
            total: Tensor = self.loss(*joined_batch(embeddings, labels))
        return total


def joined_batch(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [n, d] and labels [n] of all processes; gradients as ``GatheredLoss`` says."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return embeddings, labels
    sizes = _sizes(len(embeddings), embeddings.device)
    joined: Tensor = _Gather.apply(embeddings, sizes)  # type: ignore[no-untyped-call]
    return joined, _gathered(labels, sizes)


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, this process's rows times the number of processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        context.sizes = sizes
        return _gathered(rows, sizes)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rank, sizes = dist.get_rank(), context.sizes
        start = sum(sizes[:rank])
        return gradients[0][start : start + sizes[rank]] * len(sizes), None


def _gathered(rows: Tensor, sizes: list[int]) -> Tensor:
    """Rows of all processes in the order of their ranks; smaller batches are padded on the way."""
    padded = rows.detach().new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _sizes(n: int, device: torch.device) -> list[int]:
    mine = torch.tensor([n], device=device)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return [int(part) for part in parts]


def _common_seed(device: torch.device) -> int:
    seed = torch.randint(2**31, (1,)).to(device)
    dist.broadcast(seed, src=0)
    return int(seed)
