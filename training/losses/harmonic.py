"""Harmonic loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss
from training.losses.parts.pair_masks import compute_squared_distances

NEAREST = 1e-4  # added to squared distances, as in the authors' code: an item on its centre has a finite loss


class Harmonic(ClassVectorLoss):
    """Softmax over powers of the distance to class centres, whose optimum is at the centres.

    Formula: ``mean_i -log p_iy``, ``p_ic = d_ic^-exponent / sum_c' d_ic'^-exponent``, d the L2 distance of
    the unit embedding to the class centre.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        exponent: sqrt(d) unless given; the authors suggest 1, sqrt(d) or d.

    Related losses: ProxyNCA falls exponentially with the squared distance and has no finite optimum.

    Reference implementation: powers of d^2 / min d^2, which underflow for far classes; here a softmax of
    logarithms.
    """

    name = "harmonic"
    paper = "Baek et al., Harmonic Loss Trains Interpretable AI Models, 2025, arXiv 2502.01628"
    when = "Class centres that can be read as prototypes."
    vectors = "centers"

    def __init__(self, num_classes: int, embedding_dim: int, exponent: float | None = None) -> None:
        super().__init__(num_classes)
        self.centers = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))
        self.exponent = math.sqrt(embedding_dim) if exponent is None else exponent

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        items = F.normalize(embeddings, dim=1)
        squared = compute_squared_distances(items, self.centers.to(items.dtype)) + NEAREST
        return F.cross_entropy(-self.exponent / 2 * squared.log(), labels, reduction="none")
