"""Nearest classes of each class while the network trains, for batches of hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.array_types import RowIndices

CLASSES_AT_ONCE = 1024


class ClassNeighbours(nn.Module):
    """Centres of the classes, updated batch by batch, and the nearest of each.

    Hard classes in one batch: Sohn 2016 (N-pair loss, section 3.2.2) and Ge et al. 2018 (hierarchical triplet
    loss, arXiv 1810.06951); here without embedding the whole set, from what the batches gave anyway.

    An epoch's batches follow from the centres at its beginning; a checkpoint holds those too, so that a run
    can resume within an epoch.

    Args:
        classes: how many there are. dimension: of an embedding.
    """

    centres: Tensor
    at_start: Tensor

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, dimension))
        self.register_buffer("at_start", torch.zeros(classes, dimension))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Set the centre of each class in a batch to the direction of its items' mean.

        Args:
            embeddings: float [n, d], unit rows. labels: int [n], class codes.
        """
        codes, positions = torch.unique(labels, return_inverse=True)
        sums = torch.zeros(len(codes), embeddings.shape[1], device=embeddings.device)
        sums.index_add_(0, positions, embeddings.detach().to(sums.dtype))
        self.centres[codes] = F.normalize(sums, dim=1)

    def begin_epoch(self) -> None:
        """Let the epoch's batches follow from the centres as they are now."""
        self.at_start.copy_(self.centres)

    def find_nearest(self, count: int) -> RowIndices | None:
        """Int [classes, count]: the nearest others of each class, nearest first; fewer where fewer are known.

        None before an epoch began with centres of two classes. Classes not yet seen are never returned.
        """
        is_known = self.at_start.any(dim=1)
        count = min(count, int(is_known.sum()) - 1)
        if count < 1:
            return None
        blocks = []
        for begin in range(0, len(is_known), CLASSES_AT_ONCE):
            rows = torch.arange(begin, min(begin + CLASSES_AT_ONCE, len(is_known)), device=is_known.device)
            similarity = self.at_start[rows] @ self.at_start.T
            similarity[:, ~is_known] = -2.0
            similarity[torch.arange(len(rows)), rows] = -3.0
            blocks.append(similarity.topk(count, dim=1).indices)
        nearest: RowIndices = torch.cat(blocks).cpu().numpy()
        return nearest
