"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), to be started from the weights of ImageNet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn

from training.models.backbones.backbone import Backbone, Shape

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Table 2 of the paper: expansion, channels, blocks, stride of the first block."""
STEM, LAST = 32, 1280
_NESTED = re.compile(r"^(features\.\d+\.conv)\.(\d+)(?:\.(\d+))?\.(\w+)$")


class MobileNetV2(Backbone):
    """Nineteen blocks: a stem, seventeen inverted residuals, a last convolution to 1,280 channels.

    ``weights`` take the names of the authors' PyTorch code and those of torchvision; a classifier among them
    is left out. Grey images are shown to it in three channels.
    """

    layouts = frozenset(("map",))
    usual_pooling = "average"

    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Sequential(*_convolve(3, STEM, stride=2))]
        channels = STEM
        for expansion, width, count, stride in STAGES:
            for number in range(count):
                blocks.append(_InvertedResidual(channels, width, expansion, 1 if number else stride))
                channels = width
        blocks.append(nn.Sequential(*_convolve(channels, LAST, kernel=1)))
        self.features = nn.Sequential(*blocks)
        _, height, width = input_shape
        self.feature_shape = (LAST, math.ceil(height / 32), math.ceil(width / 32))

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.features(inputs.expand(-1, 3, -1, -1))
        return features

    @property
    def chain(self) -> list[nn.Module]:
        return list(self.features)

    def run_until(self, inputs: Tensor, block: int) -> Tensor:
        return super().run_until(inputs.expand(-1, 3, -1, -1), block)

    @classmethod
    def rename_weights(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torchvision nests convolution, norm and activation: ``conv.1.0`` there is ``conv.3`` here."""
        found = {name: match.groups() for name in weights if (match := _NESTED.match(name))}
        nested = {block: 1 + int(outer) for block, outer, inner, _ in found.values() if inner}
        renamed = {}
        for name, value in weights.items():
            block, outer, inner, tensor = found.get(name, ("", "0", None, ""))
            if block in nested:  # as many lists of three, then a convolution and a norm by themselves
                depth = min(int(outer), nested[block])
                name = f"{block}.{3 * depth + int(inner or int(outer) - depth)}.{tensor}"
            renamed[name] = value
        return renamed


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        widen = _convolve(channels, inner, kernel=1) if expansion > 1 else []
        narrow = [nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.conv = nn.Sequential(*widen, *_convolve(inner, inner, stride=stride, groups=inner), *narrow)
        self.has_shortcut = stride == 1 and channels == width

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.conv(inputs)
        return inputs + outputs if self.has_shortcut else outputs


def _convolve(
    channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]
