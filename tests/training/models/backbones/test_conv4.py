"""The options of the small convolutional network."""

from __future__ import annotations

import torch

from training.models.backbones.conv4 import Conv4


def test_pooling_first_normalises_a_quarter_of_the_numbers() -> None:
    shapes: dict[bool, list[torch.Size]] = {}
    for pool_first in (False, True):
        backbone = Conv4((1, 12, 12), widths=(4, 8, 8), pool_first=pool_first)
        seen = shapes.setdefault(pool_first, [])
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape))
        assert backbone(torch.randn(2, 1, 12, 12)).shape == (2, *backbone.feature_shape) == (2, 8, 3, 3)
    assert [shape[2] for shape in shapes[False]] == [12, 6, 3]
    assert [shape[2] for shape in shapes[True]] == [6, 3, 3]


def test_a_strided_stem_halves_what_pooling_would_and_residuals_keep_it() -> None:
    backbone = Conv4((1, 48, 48), widths=(4, 8, 8), strided_stem=True, residuals=(0, 1, 2), pool_first=True)
    sides: list[tuple[int, int]] = []
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(
                lambda _, inputs, output: sides.append((inputs[0].shape[2], output.shape[2]))
            )
    assert backbone(torch.randn(2, 1, 48, 48)).shape == (2, *backbone.feature_shape) == (2, 8, 6, 6)
    assert sides == [(48, 24), (24, 24), (12, 12), (12, 12), (6, 6), (6, 6)]


def test_a_residual_adds_to_what_it_is_given() -> None:
    torch.manual_seed(0)
    plain = Conv4((1, 8, 8), widths=(4,)).eval()
    deeper = Conv4((1, 8, 8), widths=(4,), residuals=(1,)).eval()
    deeper.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(3, 1, 8, 8)
    further = plain(images)
    added = torch.relu(deeper.layers[-1].norm(deeper.layers[-1].convolution(further)))
    assert added.abs().max() > 0.01
    torch.testing.assert_close(deeper(images), further + added)
