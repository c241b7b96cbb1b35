"""Floating-point precision of the backbone and of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from api_schemas.config import Config


def is_bfloat16_enabled(config: Config, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16; ``auto`` does so where the hardware is fast at it."""
    if config.precision == "auto":
        return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return config.precision == "bfloat16"


def widen_half_precision(values: Tensor) -> Tensor:
    """Half precisions as float32; float32 and float64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
