"""A small residual network from scratch (He et al. 2016, arXiv 1512.03385, basic blocks)."""

from __future__ import annotations

import math
from itertools import accumulate

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.backbones.backbone import Backbone, Shape, check_positive, cut_layers


class Resnet(Backbone):
    """A 3 x 3 stem, then stages of basic blocks; each stage after the first halves height and width.

    Defaults suit images of 28 to 64 pixels; ``blocks`` gives the number of blocks of each stage.
    """

    layouts = frozenset(("map",))

    def __init__(
        self,
        input_shape: Shape,
        widths: Shape = (32, 64, 128, 256),
        blocks: Shape = (1, 1, 1, 1),
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        check_positive(widths=widths or [0], blocks=blocks, stem_stride=[stem_stride])
        if len(widths) != len(blocks):
            raise ValueError(
                f"widths and blocks must be of equal length, found {len(widths)} and {len(blocks)}"
            )
        channels, height, width = input_shape
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(True),
        )
        height, width = math.ceil(height / stem_stride), math.ceil(width / stem_stride)
        channels = widths[0]
        stages: list[nn.Module] = []
        for stage, (out_channels, depth) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                stages.append(_Block(channels, out_channels, stride))
                channels, height, width = out_channels, math.ceil(height / stride), math.ceil(width / stride)
        self.stages = nn.Sequential(*stages)
        self.ends = list(accumulate(blocks))
        self.feature_shape = (channels, height, width)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(inputs))
        return features

    @property
    def chain(self) -> list[nn.Module]:
        return [self.stem, *cut_layers(self.stages, self.ends)]


class _Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(inputs)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(inputs))
