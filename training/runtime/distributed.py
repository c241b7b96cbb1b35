"""Distributed training: rank, shard and exchanges of this process; no-ops when it is alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from common.array_types import Float32s, RowIndices
from common.errors import InputError
from training.runtime.all_gather import gather_batch

PATIENCE = timedelta(hours=2)  # the others wait while the first measures; NCCL gives up after ten minutes


class Processes:
    """The processes that train one network together; each computes its shard of every batch.

    Attributes:
        rank: of this process, from 0. count: of processes.
    """

    def __init__(self, device: torch.device) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.count = dist.get_world_size() if together else 1
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures, speaks and writes."""
        return self.rank == 0

    def select_shard(self, rows: RowIndices) -> RowIndices:
        """This process's part of a batch; the parts differ by one row at most."""
        return np.array_split(rows, self.count)[self.rank]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.count, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over the processes."""
        if self.count == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return together.tolist()

    def broadcast_text(self, text: str) -> str:
        """The text that the first process has."""
        if self.count == 1:
            return text
        (size,) = self.reduce_max(len(text.encode()) if self.is_first else 0)
        letters = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.is_first:
            letters.copy_(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
        dist.broadcast(letters, src=0)
        return bytes(letters.tolist()).decode()

    def check_same_state(self, state: str) -> None:
        """Raises the same InputError in all processes when one is in another state than the first.

        Args:
            state: step and data of this process, in words.
        """
        first = self.broadcast_text(state)
        (differ,) = self.reduce_max(state != first)
        if differ:
            raise InputError(
                f"The processes would go on from different states, the first from {first}: give "
                "all of them the same data, and an --out on a disk that they share."
            )

    def gather_rows(self, rows: Float32s) -> Float32s:
        """The rows [n, d] of all processes, one after the other, in all of them."""
        if self.count == 1:
            return rows
        own = torch.from_numpy(rows).to(self.device)
        gathered, _ = gather_batch(own, own.new_zeros(len(rows)))
        return gathered.cpu().numpy()

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.reduce_max(0.0)


@contextmanager
def join_processes() -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` or ``accelerate launch`` started; gives the device of this one."""
    cuda = torch.cuda.is_available()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(device)  # for what asks for "the" GPU: compiled kernels, barriers
    if several:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        if several:
            dist.destroy_process_group()
