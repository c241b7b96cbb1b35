"""What every backbone is."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Input batch to features.

    Attributes:
        features: shape of one item's features, (channels, height, width) or (d,).
    """

    features: tuple[int, ...]

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, *input shape] to [n, *features]."""
        raise NotImplementedError


def flat_size(shape: tuple[int, ...]) -> int:
    """How many numbers an array of that shape holds."""
    size = 1
    for side in shape:
        size *= side
    return size
