"""Backbones for vectors and table rows; images are flattened."""

from __future__ import annotations

from torch import Tensor, nn

from training.models.backbones.types import Backbone, at_least_one, flat_size


class Mlp(Backbone):
    """Fully connected layers with batch normalisation and ReLU between them."""

    def __init__(
        self, input_shape: tuple[int, ...], hidden: tuple[int, ...] = (256, 256), dropout: float = 0.0
    ) -> None:
        super().__init__()
        at_least_one(hidden=hidden)
        size = flat_size(input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for wide in hidden:
            layers += [
                nn.Linear(size, wide, bias=False),
                nn.BatchNorm1d(wide),
                nn.ReLU(True),
                nn.Dropout(dropout),
            ]
            size = wide
        self.layers = nn.Sequential(*layers)
        self.features = (size,)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, ...] to [n, last hidden width]."""
        features: Tensor = self.layers(inputs)
        return features


class Linear(Backbone):
    """Nothing before the linear head: one matrix from input to embedding."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = (flat_size(input_shape),)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, ...] to [n, d]."""
        return inputs.flatten(1)


class Identity(Linear):
    """The input itself is the embedding: no head, nothing to learn but a loss's own parameters."""
