"""Batch inputs: stored items to a network's input on a device, in training augmented and in every form."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from api_schemas.data_config import AugmentationConfig
from common.array_types import Float32s, RowIndices
from encoder.inputs.preprocessing import Preprocessing
from training.batches.augmentation import augment_images
from training.data.decoded.pieces import Pieces
from training.data.items import Items
from training.data.row_store import RowStore
from training.models.test_time_views import make_views
from training.runtime.device import send_to_device


class DeviceInputs:
    """Rows of ``Items.inputs`` to the network's input, on a device: the arithmetic of serving, on tensors."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device = device
        self.is_picture = preprocessing.is_picture
        self.scale = [torch.from_numpy(part).to(device) for part in preprocessing.normalisation or ()]

    def __call__(self, rows: NDArray[np.generic]) -> Tensor:
        """Uint8 [n, c, h, w] or float [n, ...] to the float32 input batch."""
        batch = send_to_device(torch.from_numpy(np.ascontiguousarray(rows)), self.device)
        if not self.scale:
            return batch
        mean, std = self.scale
        return batch.float().div_(255).sub_(mean).div_(std)


def count_forms(augmentation: AugmentationConfig) -> int:
    """Number of classes that each training class becomes: times 4 where rotations by quarter turns are
    classes of their own, times 2 where flips are."""
    return (4 if augmentation.rotations_as_classes else 1) * (2 if augmentation.mirrors_as_classes else 1)


class TrainingInputs:
    """Training items by row; every form of an item that is a class of its own is a row.

    Args:
        ignores_labels: every row is a class of its own.
        teacher: a teacher's features of the items, float32 [n, d].

    Attributes:
        forms: of each item; form f is rotated by ``f % 4`` quarter turns, and flipped from 4 on (from 1 on
            where only flips are classes).
        codes: int [rows], the class of each row from 0; row ``forms * item + form``.
        is_query: bool [rows], see ``Items.is_query``.
    """

    def __init__(
        self,
        items: Items,
        prepare: DeviceInputs,
        augmentation: AugmentationConfig,
        teacher: Float32s | None = None,
        ignores_labels: bool = False,
    ) -> None:
        self.items, self.prepare, self.augmentation = items, prepare, augmentation
        self.teacher = teacher
        self.forms = count_forms(augmentation)
        _, codes = np.unique(items.labels, return_inverse=True)
        codes = np.arange(len(items)) if ignores_labels else codes
        self.codes: RowIndices = (codes[:, None] * self.forms + np.arange(self.forms)).ravel()
        self.is_query = None if items.is_query is None else np.repeat(items.is_query, self.forms)
        if self.forms > 1:
            self._sources = _compute_sources(augmentation, *items.inputs.shape[2:]).to(prepare.device)

    def __call__(self, rows: RowIndices, generator: torch.Generator) -> Tensor:
        """The augmented input batch [n, *shape] of those rows."""
        if isinstance(self.items.inputs, Pieces):
            drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64, device=generator.device)
            inputs = self.prepare(self.items.inputs.pick(rows, drawn.cpu().numpy()))
        else:
            inputs = self.prepare(self.items.inputs[rows // self.forms])
        if self.prepare.is_picture:
            inputs = self._change_form(inputs, rows % self.forms)
            inputs = augment_images(inputs, self.augmentation, generator, self.prepare.scale)
        if inputs.ndim == 4:  # the layout CPU convolutions are fast in
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def expect(self, rows: RowIndices) -> None:
        """Begin to fetch the items of those rows, where they lie elsewhere."""
        if isinstance(self.items.inputs, RowStore):
            self.items.inputs.expect(rows // self.forms)

    def get_labels(self, rows: RowIndices) -> Tensor:
        """Class codes int64 [n] of those rows."""
        return send_to_device(torch.from_numpy(self.codes[rows]), self.prepare.device)

    def get_roles(self, rows: RowIndices) -> Tensor | None:
        """Bool [n], which of those rows are queries; None where all are both."""
        if self.is_query is None:
            return None
        return send_to_device(torch.from_numpy(self.is_query[rows]), self.prepare.device)

    def get_teacher_features(self, rows: RowIndices) -> Tensor | None:
        """The teacher's features float [n, d] of those rows; None without a teacher."""
        if self.teacher is None:
            return None
        return send_to_device(torch.from_numpy(self.teacher[rows // self.forms]), self.prepare.device)

    def prepare_form(self, items: NDArray[np.generic], form: int) -> Tensor:
        """Stored items [n, ...] prepared and in one form, without augmentation."""
        return self._change_form(self.prepare(items), np.full(len(items), form))

    def _change_form(self, images: Tensor, form: RowIndices) -> Tensor:
        if self.forms == 1:
            return images
        sources = self._sources[send_to_device(torch.from_numpy(form), images.device)].unsqueeze(1)
        flat = images.flatten(2)
        return flat.gather(2, sources.expand_as(flat)).view_as(images)


def _compute_sources(augmentation: AugmentationConfig, height: int, width: int) -> Tensor:
    """Int64 [forms, h * w]: from which pixel of the image each pixel of a form comes."""
    image = torch.arange(height * width).view(1, 1, height, width)
    rotated = make_views(image, 4 if augmentation.rotations_as_classes else 1)
    forms = torch.cat([rotated, rotated.flip(3)]) if augmentation.mirrors_as_classes else rotated
    return forms.flatten(1)
