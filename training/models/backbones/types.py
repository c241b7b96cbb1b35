"""What every backbone is."""

from __future__ import annotations

from collections.abc import Sequence

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


def at_least_one(**sizes: Sequence[int]) -> None:
    """Raises ValueError naming a list of sizes that holds one below 1."""
    for name, values in sizes.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{name} must be whole numbers of at least 1, found {list(values)}")


def flat_size(shape: tuple[int, ...]) -> int:
    """How many numbers an array of that shape holds."""
    size = 1
    for side in shape:
        size *= side
    return size
