"""The small convolutional network of the few-shot literature (Vinyals et al. 2016, arXiv 1606.04080)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.backbones.backbone import Backbone, Shape, check_positive, cut_layers


class Conv4(Backbone):
    """Blocks of 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max-pooling while both sides exceed 3.

    Defaults: four blocks of 64 channels, as published. ``widths`` sets the channels of each block,
    ``dropout`` leaves out whole channels of the last block while training, ``pool_first`` pools before
    it normalises, which is then done on a quarter of the numbers: a third less time in all.
    ``strided_stem`` halves height and width in the first block by a 5 x 5 convolution of stride 2 instead of
    pooling. ``residuals``, one number a block, adds so many further convolutions of its width, each with a
    shortcut around it (He et al. 2016, arXiv 1512.03385): depth where images are small costs little.
    """

    layouts = frozenset(("map",))

    def __init__(
        self,
        input_shape: Shape,
        widths: Shape = (64, 64, 64, 64),
        dropout: float = 0.0,
        pool_first: bool = False,
        strided_stem: bool = False,
        residuals: Shape | None = None,
    ) -> None:
        super().__init__()
        check_positive(widths=widths)
        further = (0,) * len(widths) if residuals is None else residuals
        if len(further) != len(widths):
            raise ValueError(
                f"widths and residuals must be of equal length, found {len(widths)} and {len(further)}"
            )
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        for block, (out_channels, depth) in enumerate(zip(widths, further, strict=True)):
            normalised: list[nn.Module] = [nn.BatchNorm2d(out_channels), nn.ReLU(True)]
            if strided_stem and not block:
                layers.append(nn.Conv2d(channels, out_channels, 5, stride=2, padding=2, bias=False))
                layers += normalised
                height, width = math.ceil(height / 2), math.ceil(width / 2)
            else:
                pooled: list[nn.Module] = []
                if min(height, width) > 3:
                    pooled = [nn.MaxPool2d(2)]
                    height, width = height // 2, width // 2
                layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False))
                layers += pooled + normalised if pool_first else normalised + pooled
            layers += [_Residual(out_channels) for _ in range(depth)]
            channels = out_channels
            self.ends.append(len(layers))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
            self.ends[-1] += 1
        self.layers: nn.Sequential = nn.Sequential(*layers)
        self.feature_shape = (channels, height, width)

    @property
    def chain(self) -> list[nn.Module]:
        return cut_layers(self.layers, self.ends)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + F.relu(self.norm(self.convolution(inputs)))
