"""A small residual network from scratch (He et al. 2016, arXiv 1512.03385, basic blocks)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.backbones.backbone import Backbone, Shape, check_positive


class Resnet(Backbone):
    """A 3 x 3 stem, then stages of basic blocks; each stage after the first halves the side.

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
        height, width = -(-height // stem_stride), -(-width // stem_stride)
        channels = widths[0]
        stages: list[nn.Module] = []
        for stage, (wide, depth) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                stages.append(_Block(channels, wide, stride))
                channels, height, width = wide, -(-height // stride), -(-width // stride)
        self.stages = nn.Sequential(*stages)
        self.feature_shape = (channels, height, width)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(inputs))
        return features


class _Block(nn.Module):
    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, wide, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(wide)
        self.second = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(wide)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != wide:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(inputs)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(inputs))
