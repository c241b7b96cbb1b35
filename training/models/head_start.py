"""Where a linear head begins: at directions that are computed from the training items' features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.array_types import Float32s, Int64s


def start_from_components(head: nn.Linear, features: Float32s, codes: Int64s, shrinkage: float) -> None:
    """The principal components of unit features, the bias zero: what keeps their similarities best.

    The cosine of two outputs is then that of their features, exactly where the head has as many outputs as
    inputs, else as nearly as so many numbers allow (Eckart and Young 1936).

    Args:
        features: float [n, inputs], of training items.
        codes: int [n], their classes; neither they nor the shrinkage count here.
    """
    unit = F.normalize(torch.from_numpy(features).double(), dim=1)
    _set_head(head, _find_directions(unit, head.out_features), torch.zeros(unit.shape[1]))


def start_from_whitening(head: nn.Linear, features: Float32s, codes: Int64s, shrinkage: float) -> None:
    """Features around their mean, scaled down where items of one class differ; then principal components.

    ``(S_w + s v I)^(-1/2) (x - m)``: S_w the covariance within classes, v its mean variance, s the
    shrinkage, m the mean (Hatch et al., Interspeech 2006).

    Args:
        features: float [n, inputs], of training items. codes: int [n], their classes.
        shrinkage: towards features that are only centred.
    """
    values = torch.from_numpy(features).double()
    of_item = torch.from_numpy(codes)
    counts = torch.bincount(of_item).double()
    means = torch.zeros(len(counts), values.shape[1], dtype=torch.float64).index_add_(0, of_item, values)
    within = values - (means / counts[:, None])[of_item]
    variances, axes = torch.linalg.eigh(within.T @ within / len(values))
    shrunk = variances.clamp(min=0) + shrinkage * variances.mean().clamp(min=1e-12)
    whitening = axes / shrunk.sqrt() @ axes.T
    centre = values.mean(0)
    directions = _find_directions((values - centre) @ whitening, head.out_features)
    _set_head(head, directions @ whitening, centre)


HEAD_STARTS = {"components": start_from_components, "whitened": start_from_whitening}
"""By ``model.head_start``, but ``random``, which is how a head is made."""


def _find_directions(values: Tensor, count: int) -> Tensor:
    """The directions of largest second moment, unit rows float64 [min(count, d), d]."""
    _, axes = torch.linalg.eigh(values.T @ values)  # in ascending order
    directions: Tensor = axes.flip(1).T[:count]
    return directions


def _set_head(head: nn.Linear, matrix: Tensor, centre: Tensor) -> None:
    """Rows of a matrix over features around a centre; further outputs are zero."""
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[: len(matrix)] = matrix.to(head.weight)
        head.bias[: len(matrix)] = -(matrix @ centre.double()).to(head.bias)
