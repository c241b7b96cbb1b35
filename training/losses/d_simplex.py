"""Fixed regular-simplex classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.class_vector_base import ClassVectorLoss, compute_cosines


class DSimplex(ClassVectorLoss):
    """Classification against class vectors that never move: the corners of a regular simplex.

    Formula: ``mean_i -log softmax_c(scale * cos(x_i, t_c))_{y_i}``; t are the d + 1 corners in d dimensions,
    pairwise cosine -1/d. Corners beyond the classes stay free for classes to come, and stay in the
    denominator, so later models are comparable with earlier ones.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1; d at least num_classes - 1. No references.

    Parameters:
        scale: 10.

    Related losses: normalised softmax with learned vectors, temperature = 1 / scale.

    Reference implementation: labels take the last corners; here the first; all corners are equivalent. The
    network's raw outputs are multiplied with the corners; their 10 scales the comparison of old with new
    features.
    """

    name = "d_simplex"
    paper = "Pernici et al., Regular Polytope Networks, 2021; d-Simplex, CVPR 2024"
    when = "Models that must stay comparable over versions; classes at most embedding_dim + 1."

    corners: Tensor

    def __init__(self, num_classes: int, embedding_dim: int, scale: float = 10.0) -> None:
        super().__init__(num_classes)
        if embedding_dim < num_classes - 1:
            raise ValueError(
                f"d_simplex has embedding_dim + 1 = {embedding_dim + 1} corners, fewer than the "
                f"{num_classes} classes: embedding_dim must be at least {num_classes - 1}"
            )
        self.scale = scale
        self.register_buffer("corners", build_simplex(embedding_dim), persistent=False)

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = self.scale * compute_cosines(embeddings, self.corners)
        return F.cross_entropy(logits, labels, reduction="none")


def build_simplex(dimension: int) -> Tensor:
    """The d + 1 corners of a regular simplex around 0, unit rows; float32 [d + 1, d]."""
    corners = torch.zeros(dimension + 1, dimension, dtype=torch.float64)
    corners[:dimension] = torch.eye(dimension, dtype=torch.float64)
    corners[dimension] = (1 - math.sqrt(1 + dimension)) / dimension
    return F.normalize(corners - corners.mean(0), dim=1).float()
