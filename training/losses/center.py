"""Center loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss


class Center(ClassVectorLoss):
    """Pulls every item to the learned centre of its class. Made to be added to a loss that separates classes.

    Formula: ``mean_i |x_i - c_{y_i}|^2``, x of unit length.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        none. As a term beside a softmax a weight of 0.003 to 1 is usual; alone, everything collapses to
        one point, where the loss is 0.

    Related losses: nd pulls to the batch's own class means.

    Reference implementation: the popular port clamps distances after masking, which adds 1e-12 per masked
    entry, and has no factor 1/2 (the paper has).
    """

    name = "center"
    paper = "Wen et al., A Discriminative Feature Learning Approach, ECCV 2016"
    when = "Added to a softmax for tighter classes. Never alone."
    vectors = "centers"

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__(num_classes)
        self.centers = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return (F.normalize(embeddings, dim=1) - self.centers[labels]).square().sum(1)
