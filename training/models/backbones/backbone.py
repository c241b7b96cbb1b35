"""Base class of backbones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn

from encoder.inputs.preprocessing import Layout

Shape = tuple[int, ...]


class Backbone(nn.Module):
    """Input batch to features, by its ``layers`` where a kind does not say otherwise.

    Attributes:
        layouts: the layouts of prepared inputs that it takes.
        usual_pooling: over positions, where the configuration names none.
        is_differentiable: whether gradients pass through it; one that is not can only be kept as it is.
        feature_shape: shape of one item's features, (channels, height, width) or (d,).
    """

    layouts: ClassVar[frozenset[Layout]]
    usual_pooling: ClassVar[str] = "flat"
    is_differentiable: ClassVar[bool] = True
    feature_shape: Shape
    layers: nn.Module

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, *input shape] to [n, *feature_shape]."""
        features: Tensor = self.layers(inputs)
        return features

    def train(self, mode: bool = True) -> Self:
        """As every module, but what is frozen stays as in evaluation: norms keep their statistics there."""
        super().train(mode)
        for module in self.modules():
            own = list(module.parameters())
            if own and not any(weight.requires_grad for weight in own):
                for part in module.modules():
                    part.training = False
        return self

    @property
    def blocks(self) -> list[nn.Module]:
        """Its parts from input to output: what ``last_n`` and ``layer_decay`` count."""
        return self.chain or list_blocks(self)

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

    def run_between(self, values: Tensor, first: int, last: int) -> Tensor:
        """What came out of one block of the chain to what comes out of a later one."""
        for part in self.chain[first:last]:
            values = part(values)
        return values

    @classmethod
    def rename_weights(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights by the names that they have here, from those that other code gives them."""
        return dict(weights)

    def describe(self) -> str:
        """What decides its answers besides its parameters in the configuration and its tensors."""
        return type(self).__name__

    def save_shape(self, folder: Path) -> None:
        """Write what a network of this kind is built from again, where its name does not say it."""


def list_blocks(module: nn.Module) -> list[nn.Module]:
    """The entries of a network's lists of layers, lists in lists opened; of single layers where it has
    no others."""
    blocks = _expand(module) or [part for part in module.modules() if not _is_compound(part)]
    return [block for block in blocks if any(True for _ in block.parameters())]


def _expand(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.ModuleList | nn.Sequential) and any(_is_compound(entry) for entry in module):
        return [block for entry in module for block in (_expand(entry) or [entry])]
    return [block for child in module.children() for block in _expand(child)]


def _is_compound(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def check_positive(**sizes: Sequence[int]) -> None:
    """Raises ValueError naming a list of sizes that holds one below 1."""
    for name, values in sizes.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{name} must be whole numbers of at least 1, found {list(values)}")


def cut_layers(layers: nn.Sequential, ends: Iterable[int]) -> list[nn.Module]:
    """A chain of layers cut after so many of them each time; the parts share its weights."""
    bounds = [0, *ends]
    return [layers[start:end] for start, end in pairwise(bounds)]
