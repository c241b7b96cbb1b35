"""Floating-point precision of losses."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precisions widened; float64 stays."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
