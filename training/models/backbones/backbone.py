"""Base class of backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from encoder.inputs.preprocessing import Layout

Shape = tuple[int, ...]


class Backbone(nn.Module):
    """Input batch to features, by its ``layers`` where a kind does not say otherwise.

    Attributes:
        layouts: the layouts of prepared inputs that it takes.
        feature_shape: shape of one item's features, (channels, height, width) or (d,).
    """

    layouts: ClassVar[frozenset[Layout]]
    feature_shape: Shape
    layers: nn.Module

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, *input shape] to [n, *feature_shape]."""
        features: Tensor = self.layers(inputs)
        return features


def check_positive(**sizes: Sequence[int]) -> None:
    """Raises ValueError naming a list of sizes that holds one below 1."""
    for name, values in sizes.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{name} must be whole numbers of at least 1, found {list(values)}")
