"""Center loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss
from training.losses.parts.earlier_means import read_class_means


class Center(ClassVectorLoss):
    """Pulls every item to the centre of its class. Made to be added to a loss that separates classes.

    Formula: ``mean_i |x_i - c_{y_i}|^2``, x of unit length; c is learned, or frozen for a class that an
    earlier model knew.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        centers_from: null; a run folder or bundle of an earlier version, or an embeddings file of it: its
            classes keep the mean of their unit embeddings there as their centre, against forgetting, so new
            embeddings can be compared with old ones. Classes that are new learn theirs.
        As a term beside a softmax a weight of 0.003 to 1 is usual; alone, everything collapses to one point,
        where the loss is 0.

    Related losses: nd pulls to the batch's own class means, or to a teacher's. d_simplex keeps classes
    comparable by corners that never move.

    Reference implementation: the popular port clamps distances after masking, which adds 1e-12 per masked
    entry, and has no factor 1/2 (the paper has).
    """

    name = "center"
    paper = "Wen et al., A Discriminative Feature Learning Approach, ECCV 2016"
    when = "Added to a softmax for tighter classes, or to keep those of an earlier model. Never alone."
    vectors = "centers"

    frozen: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        class_names: Sequence[str] | None = None,
        centers_from: str | None = None,
    ) -> None:
        super().__init__(num_classes)
        centers = F.normalize(torch.randn(num_classes, embedding_dim), dim=1)
        frozen = torch.zeros(num_classes, dtype=torch.bool)
        if centers_from is not None:
            earlier = read_class_means(Path(centers_from), embedding_dim)
            for code, name in enumerate(class_names or ()):
                if name in earlier:
                    centers[code], frozen[code] = earlier[name], True
        self.centers_from = centers_from
        self.centers = nn.Parameter(centers)
        self.register_buffer("frozen", frozen, persistent=False)

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        centers = self.centers[labels]
        centers = torch.where(self.frozen[labels, None], centers.detach(), centers)
        return (F.normalize(embeddings, dim=1) - centers).square().sum(1)

    def set_class_vectors(self, rows: Tensor, vectors: Tensor) -> None:
        """Replace the vectors of some classes but not those that are frozen."""
        kept = self.centers[self.frozen].detach().clone()
        super().set_class_vectors(rows, vectors)
        with torch.no_grad():
            self.centers[self.frozen] = kept

    def describe_classes(self, names: Sequence[str]) -> str | None:
        if self.centers_from is None:
            return None
        kept = int(self.frozen.sum())
        warning = "" if kept else "Warning: "
        return f"{warning}center keeps {kept} of {len(names)} classes where {self.centers_from} has them."
