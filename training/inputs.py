"""What the network is shown while it trains: rows of a batch to augmented inputs and their classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.config import AugmentationConfig
from training.augment import augmented, mirrored, rotated_quarters
from training.data.items import Items
from training.embed import Prepare
from training.samplers import Rows


def forms_of(augmentation: AugmentationConfig) -> int:
    """How many classes each training class becomes: times 4 where quarter turns are classes of their own,
    times 2 where mirror images are."""
    return (4 if augmentation.rotations_as_classes else 1) * (2 if augmentation.mirrors_as_classes else 1)


class Inputs:
    """Training items by row; every form of an item that is a class of its own is a row.

    Attributes:
        forms: of each item; form f is turned by ``f % 4`` quarters, and mirrored from 4 on (from 1 on where
            only mirror images are classes).
        codes: int [rows], the class of each row from 0; row ``forms * item + form``.
    """

    def __init__(self, items: Items, prepare: Prepare, augmentation: AugmentationConfig) -> None:
        self.items, self.prepare, self.augmentation = items, prepare, augmentation
        self.forms = forms_of(augmentation)
        _, codes = np.unique(items.labels, return_inverse=True)
        self.codes: Rows = (codes[:, None] * self.forms + np.arange(self.forms)).ravel()

    def __call__(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """The augmented input batch [n, *shape] of those rows."""
        inputs = self.prepare(self.items.inputs[rows // self.forms])
        if not self.prepare.image:
            return inputs
        inputs = self._in_form(inputs, torch.from_numpy(rows % self.forms).to(inputs.device))
        inputs = augmented(inputs, self.augmentation, generator)
        return inputs.contiguous(memory_format=torch.channels_last)  # the layout CPU convolutions are fast in

    def labels(self, rows: Rows) -> Tensor:
        """Class codes int64 [n] of those rows."""
        return torch.from_numpy(self.codes[rows]).to(self.prepare.device)

    def in_form(self, items: NDArray[np.generic], form: int) -> Tensor:
        """Whole items prepared and in one form, without augmentation."""
        prepared = self.prepare(items)
        return self._in_form(prepared, torch.full((len(prepared),), form, device=prepared.device))

    def _in_form(self, images: Tensor, form: Tensor) -> Tensor:
        if self.augmentation.rotations_as_classes:
            images = rotated_quarters(images, form % 4)
        if self.augmentation.mirrors_as_classes:
            images = mirrored(images, form >= self.forms // 2)
        return images
