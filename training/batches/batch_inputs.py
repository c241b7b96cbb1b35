"""What the network is shown while it trains: rows of a batch to augmented inputs and their classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.config import AugmentationConfig
from common.array_types import RowIndices
from training.batches.augmentation import augmented
from training.batches.prepare import Prepare
from training.data.items import Items
from training.models.test_time_views import views_of
from training.runtime.device_transfer import sent


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
        self.codes: RowIndices = (codes[:, None] * self.forms + np.arange(self.forms)).ravel()
        if self.forms > 1:
            self._places = _places(augmentation, *items.inputs.shape[2:]).to(prepare.device)

    def __call__(self, rows: RowIndices, generator: torch.Generator) -> Tensor:
        """The augmented input batch [n, *shape] of those rows."""
        inputs = self.prepare(self.items.inputs[rows // self.forms])
        if not self.prepare.image:
            return inputs
        inputs = self._in_form(inputs, rows % self.forms)
        inputs = augmented(inputs, self.augmentation, generator)
        return inputs.contiguous(memory_format=torch.channels_last)  # the layout CPU convolutions are fast in

    def labels(self, rows: RowIndices) -> Tensor:
        """Class codes int64 [n] of those rows."""
        return sent(torch.from_numpy(self.codes[rows]), self.prepare.device)

    def in_form(self, items: NDArray[np.generic], form: int) -> Tensor:
        """Whole items prepared and in one form, without augmentation."""
        return self._in_form(self.prepare(items), np.full(len(items), form))

    def _in_form(self, images: Tensor, form: RowIndices) -> Tensor:
        if self.forms == 1:
            return images
        places = self._places[sent(torch.from_numpy(form), images.device)].unsqueeze(1)
        flat = images.flatten(2)
        return flat.gather(2, places.expand_as(flat)).view_as(images)


def _places(augmentation: AugmentationConfig, height: int, width: int) -> Tensor:
    """Int64 [forms, h * w]: from which place of the image each place of a form comes."""
    image = torch.arange(height * width).view(1, 1, height, width)
    turned = views_of(image, 4 if augmentation.rotations_as_classes else 1)
    forms = torch.cat([turned, turned.flip(3)]) if augmentation.mirrors_as_classes else turned
    return forms.flatten(1)
