"""Fixed regular-simplex classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.class_corners import ClassCorners
from training.losses.class_vector_base import ClassVectorLoss, compute_cosines


class DSimplex(ClassVectorLoss):
    """Classification against class vectors that never move: the corners of a regular simplex.

    Formula: ``mean_i -log softmax_c(scale * cos(x_i, t_c))_{y_i}``; t are the d + 1 corners in d dimensions,
    pairwise cosine -1/d. Corners beyond the classes stay free for classes to come, and stay in the
    denominator, so later models are comparable with earlier ones.

    Shapes: embeddings [n, d], labels [n] in 0..num_classes-1; d at least num_classes - 1. No references.

    Parameters:
        scale: 10. corners_from: null; a run folder or bundle of an earlier version, whose classes keep their
            corners, also those that are not trained on now. New classes take the lowest free ones.

    Related losses: normalised softmax with learned vectors, temperature = 1 / scale.

    Reference implementation: labels take the last corners; here the first; all corners are equivalent. The
    network's raw outputs are multiplied with the corners; their 10 scales the comparison of old with new
    features.
    """

    name = "d_simplex"
    paper = "Pernici et al., Regular Polytope Networks, 2021; d-Simplex, CVPR 2024"
    when = "Models that must stay comparable over versions; classes at most embedding_dim + 1."

    corners: Tensor
    corner_of: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        class_names: Sequence[str] | None = None,
        scale: float = 10.0,
        corners_from: str | None = None,
    ) -> None:
        super().__init__(num_classes)
        names = [str(code) for code in range(num_classes)] if class_names is None else class_names
        earlier = None if corners_from is None else ClassCorners.load_from_model(Path(corners_from))
        if earlier is not None and earlier.dimension != embedding_dim:
            raise ValueError(
                f"{corners_from} has corners in {earlier.dimension} dimensions, embedding_dim is "
                f"{embedding_dim}: both must be the same"
            )
        self.scale = scale
        self.class_corners = assign_corners(names, embedding_dim, {} if earlier is None else earlier.corners)
        corner_of = torch.tensor([self.class_corners.corners[name] for name in names])
        self.register_buffer("corner_of", corner_of)
        self.register_buffer("corners", build_simplex(embedding_dim), persistent=False)

    def compute_item_losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        logits = self.scale * compute_cosines(embeddings, self.corners)
        return F.cross_entropy(logits, self.corner_of[labels], reduction="none")


def assign_corners(names: Sequence[str], dimension: int, earlier: Mapping[str, int]) -> ClassCorners:
    """The earlier classes' corners and the lowest free ones for classes that are new, in their order.

    Raises:
        ValueError: more classes than corners.
    """
    new = [name for name in names if name not in earlier]
    if len(new) + len(earlier) > dimension + 1:
        needed = len(new) + len(earlier)
        raise ValueError(
            f"d_simplex has embedding_dim + 1 = {dimension + 1} corners, fewer than the {needed} classes"
            f"{f' ({len(earlier)} of earlier versions)' if earlier else ''}: embedding_dim must be at least "
            f"{needed - 1}"
        )
    taken = set(earlier.values())
    free = (corner for corner in range(dimension + 1) if corner not in taken)
    return ClassCorners(dimension=dimension, corners={**earlier, **dict(zip(new, free, strict=False))})


def build_simplex(dimension: int) -> Tensor:
    """The d + 1 corners of a regular simplex around 0, unit rows; float32 [d + 1, d]."""
    corners = torch.zeros(dimension + 1, dimension, dtype=torch.float64)
    corners[:dimension] = torch.eye(dimension, dtype=torch.float64)
    corners[dimension] = (1 - math.sqrt(1 + dimension)) / dimension
    return F.normalize(corners - corners.mean(0), dim=1).float()
