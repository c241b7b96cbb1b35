"""The small convolutional network of the few-shot literature (Vinyals et al. 2016, arXiv 1606.04080)."""

from __future__ import annotations

from torch import Tensor, nn

from api_schemas.errors import ConfigError
from training.backbones.types import Backbone


class Conv4(Backbone):
    """Blocks of 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max-pooling while the side is over 3.

    Defaults: four blocks of 64 channels, as published. ``widths`` sets the channels of each block,
    ``dropout`` leaves out whole channels of the last block while training, ``pool_first`` pools before
    it normalises, which is then done on a quarter of the numbers: a third less time in all.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: tuple[int, ...] = (64, 64, 64, 64),
        dropout: float = 0.0,
        pool_first: bool = False,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ConfigError("model.backbone: 'conv4' takes images; for rows of numbers use mlp or linear.")
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for wide in widths:
            normalised: list[nn.Module] = [nn.BatchNorm2d(wide), nn.ReLU(True)]
            pooled: list[nn.Module] = []
            if min(height, width) > 3:
                pooled = [nn.MaxPool2d(2)]
                height, width = height // 2, width // 2
            layers.append(nn.Conv2d(channels, wide, 3, padding=1, bias=False))
            layers += pooled + normalised if pool_first else normalised + pooled
            channels = wide
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        self.layers = nn.Sequential(*layers)
        self.features = (channels, height, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, c, h, w] to [n, *features]."""
        features: Tensor = self.layers(inputs)
        return features
