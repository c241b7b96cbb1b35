"""Stored inputs to the network's input, on a device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.preprocessing import Preprocessing
from training.runtime.device_transfer import sent


class Prepare:
    """Rows of ``Items.inputs`` to the network's input, on a device: the arithmetic of serving, on tensors."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        rule = preprocessing.input
        self.image = rule.kind == "image"
        if rule.kind == "image":
            self.mean = torch.tensor(rule.mean, dtype=torch.float32, device=device).view(-1, 1, 1)
            self.std = torch.tensor(rule.std, dtype=torch.float32, device=device).view(-1, 1, 1)

    def __call__(self, rows: NDArray[np.generic]) -> Tensor:
        """Uint8 [n, c, h, w] or float [n, d] to the float32 input batch."""
        batch = sent(torch.from_numpy(np.ascontiguousarray(rows)), self.device)
        return (batch.float() / 255).sub_(self.mean).div_(self.std) if self.image else batch
