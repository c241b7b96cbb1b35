"""Backbones for vectors and table rows; images are flattened."""

from __future__ import annotations

import math

from torch import Tensor, nn

from training.models.backbones.backbone import Backbone, Shape, check_positive, cut_layers


class Mlp(Backbone):
    """Fully connected layers with batch normalisation and ReLU between them."""

    layouts = frozenset(("map", "row"))

    def __init__(self, input_shape: Shape, hidden: Shape = (256, 256), dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(hidden=hidden)
        size = math.prod(input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for out_features in hidden:
            layers += [
                nn.Linear(size, out_features, bias=False),
                nn.BatchNorm1d(out_features),
                nn.ReLU(True),
                nn.Dropout(dropout),
            ]
            size = out_features
        self.layers: nn.Sequential = nn.Sequential(*layers)
        self.feature_shape = (size,)

    @property
    def chain(self) -> list[nn.Module]:
        return cut_layers(self.layers, range(5, len(self.layers) + 1, 4))  # the first flattens as well


class Linear(Backbone):
    """Nothing before the linear head: one matrix from input to embedding."""

    layouts = frozenset(("map", "row"))

    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        self.feature_shape = (math.prod(input_shape),)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)


class Identity(Linear):
    """The input itself is the embedding: no head, nothing to learn but a loss's own parameters."""
