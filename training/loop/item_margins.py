"""The margin of each training item over the run: wrong labels are learnt late, or never."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEPT = 0.5  # of a class centre when a batch has items of the class
FAR_AWAY = -4.0  # a similarity below all
MOST_NUMBERS = 4_000_000  # in the centres: more classes would make steps longer


def build_item_margins(items: int, classes: int, dimension: int) -> ItemMargins | None:
    """Margins of no item yet; None where there are too many classes to compare every batch with."""
    return ItemMargins(items, classes, dimension) if classes * dimension <= MOST_NUMBERS else None


class ItemMargins(nn.Module):
    """How much more alike each training item was to its own class than to any other, averaged over the run.

    Area under the margin (AUM): Pleiss et al. 2020, "Identifying mislabeled data using the area under the
    margin ranking", equations 1 and 2. A margin is the cosine to the own class less the highest to another,
    in place of their logits: every loss has embeddings, few have logits. Class centres follow the batches,
    and an item is compared with them before its own batch moves them. It takes n c d multiplications for a
    batch of n, and 8 bytes an item.

    Args:
        items: in the training set. classes: how many there are. dimension: of an embedding.
    """

    centres: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, items: int, classes: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, dimension))
        self.register_buffer("sums", torch.zeros(items))
        self.register_buffer("counts", torch.zeros(items, dtype=torch.int32))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor, items: Tensor) -> None:
        """Count the margins of a batch, then move the centres of its classes.

        Args:
            embeddings: float [n, d], unit rows. labels: int [n], class codes. items: int [n].
        """
        rows = embeddings.detach().float()
        unseen = FAR_AWAY * (~self.centres.any(dim=1)).float()  # classes that no batch has held yet
        similarities = torch.addmm(unseen, rows, self.centres.T)
        own = similarities.gather(1, labels[:, None]).squeeze(1)
        other = similarities.scatter_(1, labels[:, None], FAR_AWAY).amax(dim=1)
        is_known = (own > FAR_AWAY / 2) & (other > FAR_AWAY / 2)
        self.sums.index_add_(0, items[is_known], (own - other)[is_known])
        self.counts.index_add_(0, items[is_known], torch.ones_like(items[is_known], dtype=torch.int32))
        codes, positions = torch.unique(labels, return_inverse=True)
        means = torch.zeros(len(codes), rows.shape[1], device=rows.device).index_add_(0, positions, rows)
        self.centres[codes] = F.normalize(KEPT * self.centres[codes] + (1 - KEPT) * F.normalize(means))

    def compute_means(self) -> Tensor:
        """Float32 [items]: the mean margin of each, NaN where no batch has held it."""
        return torch.where(self.counts > 0, self.sums / self.counts.clamp_min(1), torch.nan)
