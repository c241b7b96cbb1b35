"""Batches of mined triplets: which item is each one's positive, which are its hard negatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from common.array_types import RowIndices


class MinedTriplets(nn.Module):
    """A positive and hard negatives of each training row; a checkpoint holds them.

    Args:
        rows: of the training items in all their forms. most: negatives of each.
    """

    positives: Tensor
    negatives: Tensor

    def __init__(self, rows: int, most: int) -> None:
        super().__init__()
        self.register_buffer("positives", torch.full((rows,), -1))
        self.register_buffer("negatives", torch.full((rows, most), -1))

    def set_rows(self, positives: RowIndices, negatives: RowIndices) -> None:
        """Int [rows] and int [rows, most], -1 where there is none."""
        self.positives.copy_(torch.from_numpy(positives))
        self.negatives.copy_(torch.from_numpy(negatives))

    def draw_batches(self, size: int, steps: int, seed: int, epoch: int) -> list[RowIndices]:
        """The rows of each batch: anchors in random order, each with its positive and its negatives.

        An item that is in the batch already is not added again. Anchors without a negative come last, so that
        items far from everything are still seen once the others all were.
        """
        random = np.random.default_rng([seed, epoch])
        positives, negatives = self.positives.cpu().numpy(), self.negatives.cpu().numpy()
        anchors = np.flatnonzero(positives >= 0)
        batches, waiting = [], np.empty(0, dtype=np.int64)
        for _ in range(steps):
            chosen: dict[int, None] = {}
            while len(chosen) < size:
                if not len(waiting):
                    mixed = random.permutation(anchors)
                    waiting = mixed[np.argsort(negatives[mixed, 0] < 0, kind="stable")]
                anchor, waiting = int(waiting[0]), waiting[1:]
                group = [anchor, int(positives[anchor]), *negatives[anchor].tolist()]
                chosen |= dict.fromkeys(row for row in group if row >= 0)
            batches.append(np.fromiter(chosen, np.int64)[:size])
        return batches
