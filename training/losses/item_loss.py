"""Base of the losses that keep something for every training item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, PairLoss
from training.losses.parts.loss_batch import LossBatch


class ItemLoss(PairLoss):
    """Base of losses with state for each training item, by its row in the training part.

    Attributes:
        num_items: rows that there are.
        rows: int [n], the row of each item of the batch, set by the objective. Without it labels are rows:
            with two views of an item a class is an item.
    """

    rows: Tensor | None = None

    def __init__(self, class_sizes: Sequence[int]) -> None:
        super().__init__(distance=CosineSimilarity())
        self.num_items = sum(class_sizes)

    def get_rows(self, batch: LossBatch) -> Tensor:
        """The training row of each item of the batch, int [n]; raises ValueError for unknown ones."""
        rows = batch.labels if self.rows is None else self.rows
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < self.num_items):
            raise ValueError(
                f"{type(self).__name__} keeps state for {self.num_items} items; found rows "
                f"{int(rows.min())} to {int(rows.max())}"
            )
        return rows

    def learns_from(self, batch: LossBatch) -> bool:
        """Whether the batch changes the state: in training, and once where it also meets a memory."""
        return self.training and torch.is_grad_enabled() and not batch.has_references


def average_by_row(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows, int [r], and the mean of the values, float [n] or [n, d], of each."""
    distinct, codes, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(distinct), *values.shape[1:]).index_add(0, codes, values)
    return distinct, sums / counts.to(sums.dtype).view(-1, *([1] * (values.ndim - 1)))
