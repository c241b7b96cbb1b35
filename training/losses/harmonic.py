"""Harmonic loss."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss
from training.losses.parts.distances import squared_distances

NEAREST = 1e-4  # added to squared distances, as in the authors' code: an item on its centre has a finite loss


class Harmonic(ClassVectorLoss):
    """Probability falls with a power of the distance to class centres, so the optimum is at the centres.

    Formula: ``mean_i -log p_iy``, ``p_ic = d_ic^-exponent / sum_c' d_ic'^-exponent``, d the L2 distance of
    the unit embedding to the class centre.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1. No references.

    Parameters:
        exponent: sqrt(d) unless given; the authors suggest 1, sqrt(d) or d.

    Neighbours: ProxyNCA falls exponentially with the squared distance and never has enough.

    In released code: powers of d^2 / min d^2, which underflow for far classes; here a softmax of logarithms.
    """

    paper: ClassVar[str] = "Baek et al., Harmonic Loss Trains Interpretable AI Models, 2025, arXiv 2502.01628"

    def __init__(self, num_classes: int, embedding_dim: int, exponent: float | None = None) -> None:
        super().__init__(num_classes)
        self.centers = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim), dim=1))
        self.exponent = math.sqrt(embedding_dim) if exponent is None else exponent

    @property
    def class_vectors(self) -> Tensor:
        """Float [num_classes, d]."""
        return self.centers

    def per_item(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the harmonic probabilities."""
        items = F.normalize(embeddings, dim=1)
        squared = squared_distances(items, self.centers.to(items.dtype)) + NEAREST
        return F.cross_entropy(-self.exponent / 2 * squared.log(), labels, reduction="none")
