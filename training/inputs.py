"""What the network is shown while it trains: rows of a batch to augmented inputs and their classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.config import AugmentationConfig
from training.augment import augmented, rotated_quarters
from training.data.items import Items
from training.embed import Prepare
from training.samplers import Rows


def quarter_turns(augmentation: AugmentationConfig) -> int:
    """How many classes each training class becomes: 4 where its quarter turns count as classes."""
    return 4 if augmentation.rotations_as_classes else 1


class Inputs:
    """Training items by row; where quarter turns are classes, every item has four rows.

    Attributes:
        codes: int [rows], the class of each row from 0; row ``quarters * item + turns``.
    """

    def __init__(self, items: Items, prepare: Prepare, augmentation: AugmentationConfig) -> None:
        self.items, self.prepare, self.augmentation = items, prepare, augmentation
        self.quarters = quarter_turns(augmentation)
        _, codes = np.unique(items.labels, return_inverse=True)
        self.codes: Rows = (codes[:, None] * self.quarters + np.arange(self.quarters)).ravel()

    def __call__(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """The augmented input batch [n, *shape] of those rows."""
        inputs = self.prepare(self.items.inputs[rows // self.quarters])
        if not self.prepare.image:
            return inputs
        if self.quarters > 1:
            inputs = rotated_quarters(inputs, torch.from_numpy(rows % self.quarters).to(inputs.device))
        inputs = augmented(inputs, self.augmentation, generator)
        return inputs.contiguous(memory_format=torch.channels_last)  # the layout CPU convolutions are fast in

    def labels(self, rows: Rows) -> Tensor:
        """Class codes int64 [n] of those rows."""
        return torch.from_numpy(self.codes[rows]).to(self.prepare.device)

    def turned(self, items: NDArray[np.generic], turns: int) -> Tensor:
        """Whole items prepared and turned by so many quarters, without augmentation."""
        prepared = self.prepare(items)
        if turns == 0:
            return prepared
        return rotated_quarters(prepared, torch.full((len(prepared),), turns, device=prepared.device))
