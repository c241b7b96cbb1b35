"""The time-delay network of x-vectors (Snyder et al. 2018, ICASSP, "X-vectors: robust DNN embeddings")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.backbones.backbone import Backbone, Shape, check_positive, cut_layers

CONTEXTS = (
    (5, 1),
    (3, 2),
    (3, 3),
)  # frames that a layer sees, and how far apart they are; later ones see one


class Tdnn(Backbone):
    """Convolutions over time, then mean and standard deviation over time: for spectrograms.

    Frequencies (and channels) of a map [c, height, width] are the channels of a sequence of ``width`` frames.
    ReLU and batch normalisation follow each layer. The first three see 5, 9 and 15 frames of the input, later
    ones the same; published are ``widths`` 512, 512, 512, 512, 1500. ``dropout`` leaves out whole channels of
    the last layer while training.
    """

    layouts = frozenset(("map",))

    def __init__(
        self, input_shape: Shape, widths: Shape = (128, 128, 128, 128, 384), dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_positive(widths=widths or [0])
        channels = input_shape[0] * input_shape[1]
        layers: list[nn.Module] = [nn.Flatten(1, 2)]
        for number, width in enumerate(widths):
            size, step = CONTEXTS[number] if number < len(CONTEXTS) else (1, 1)
            padding = step * (size // 2)  # so that pieces of any length have frames left
            layers += [
                nn.Conv1d(channels, width, size, dilation=step, padding=padding),
                nn.ReLU(True),
                nn.BatchNorm1d(width),
            ]
            channels = width
        self._n_convolved = len(layers)
        layers += [nn.Dropout1d(dropout), _Statistics()] if dropout else [_Statistics()]
        self.layers: nn.Sequential = nn.Sequential(*layers)
        self.feature_shape = (2 * channels,)

    @property
    def chain(self) -> list[nn.Module]:
        ends = [*range(4, self._n_convolved, 3), len(self.layers)]  # the last one pools as well
        return cut_layers(self.layers, ends)


class _Statistics(nn.Module):
    """Mean and standard deviation over time."""

    def forward(self, frames: Tensor) -> Tensor:
        """[n, channels, frames] to [n, 2 * channels]."""
        mean = frames.mean(2)
        variance = (frames - mean.unsqueeze(2)).square().mean(2)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)
