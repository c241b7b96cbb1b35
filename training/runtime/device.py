"""Precision of a device's arithmetic, and copies to it and back that do not wait for what it computes."""

from __future__ import annotations

import torch
from torch import Tensor

from api_schemas.config import Config


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


def is_bfloat16_enabled(config: Config, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16; ``auto`` does so where the hardware is fast at it."""
    if config.precision == "auto":
        return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return config.precision == "bfloat16"


def widen_half_precision(values: Tensor) -> Tensor:
    """Half precisions as float32; float32 and float64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
