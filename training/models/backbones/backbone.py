"""Base class of backbones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
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

    @property
    def chain(self) -> list[nn.Module]:
        """Its blocks from input to output, where it is their composition; empty where it is no chain.

        Metrix mixes what comes out of one of them.
        """
        return []

    def run_until(self, inputs: Tensor, block: int) -> Tensor:
        """[n, *input shape] to what comes out of a block of the chain, counted from 1."""
        for part in self.chain[:block]:
            inputs = part(inputs)
        return inputs

    def run_from(self, values: Tensor, block: int) -> Tensor:
        """What came out of that block to [n, *feature_shape]."""
        for part in self.chain[block:]:
            values = part(values)
        return values


def check_positive(**sizes: Sequence[int]) -> None:
    """Raises ValueError naming a list of sizes that holds one below 1."""
    for name, values in sizes.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{name} must be whole numbers of at least 1, found {list(values)}")


def cut_layers(layers: nn.Sequential, ends: Iterable[int]) -> list[nn.Module]:
    """A chain of layers cut after so many of them each time; the parts share its weights."""
    bounds = [0, *ends]
    return [layers[start:end] for start, end in pairwise(bounds)]
