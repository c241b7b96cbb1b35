"""Copies to a device and back that do not wait for what it still computes."""

from __future__ import annotations

import torch
from torch import Tensor


def send_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``; to a GPU asynchronously, through pinned memory.

    Only from pinned memory can a GPU fetch by itself; torch keeps such memory until it has done so.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class HostCopy:
    """An asynchronous copy to the CPU; a GPU goes on computing what was queued after it."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.detach().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.current_stream().record_event() if numbers.is_cuda else None

    def read(self) -> Tensor:
        """The numbers, once they have arrived."""
        if self._arrived:
            self._arrived.synchronize()
        return self._numbers
