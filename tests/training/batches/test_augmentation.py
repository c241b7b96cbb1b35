"""Augmentation of a batch of images."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from api_schemas.data_config import AugmentationConfig
from training.batches.augmentation import _compute_sampling_grid, _draw_transforms, augment_images


def test_no_augmentation_changes_nothing_and_each_kind_changes_something() -> None:
    images = torch.rand(4, 1, 16, 16)
    assert torch.equal(augment_images(images, AugmentationConfig(), torch.Generator()), images)
    for kind in ("rotate_degrees", "scale", "shear", "shift", "elastic", "noise", "brightness", "erase"):
        settings = AugmentationConfig.model_validate({kind: 0.3 if kind != "rotate_degrees" else 20.0})
        once, again = (augment_images(images, settings, torch.Generator().manual_seed(5)) for _ in range(2))
        assert once.shape == images.shape
        assert torch.equal(once, again), kind
        assert not torch.equal(once, images), kind


def test_an_affine_transform_moves_ink_where_it_should() -> None:
    image = torch.zeros(200, 1, 21, 21)
    image[:, :, 10, 15] = 1
    moved = augment_images(image, AugmentationConfig(shift=0.2), torch.Generator().manual_seed(0))
    columns = (moved.sum(dim=(1, 2)) * torch.arange(21)).sum(1) / moved.sum(dim=(1, 2, 3))
    inside = moved.sum(dim=(1, 2, 3)) > 0.99
    assert (columns[inside] - 15).abs().max() <= 0.2 * 21 + 0.01
    assert (columns[inside] - 15).abs().max() > 3
    rotated = augment_images(image, AugmentationConfig(rotate_degrees=180), torch.Generator().manual_seed(0))
    rows, cols = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(21) - 10.0, indexing="ij")
    radius = ((rotated[:, 0] * (rows**2 + cols**2).sqrt()).sum((1, 2)) / rotated.sum((1, 2, 3))).mean()
    assert abs(float(radius) - 5) < 0.3, "a rotation keeps the distance to the centre"


def test_a_mirror_image_is_the_same_class_or_another() -> None:
    with pytest.raises(ValidationError, match="mirrors_as_classes makes it another"):
        AugmentationConfig(flip=True, mirrors_as_classes=True)


def test_an_elastic_distortion_is_smooth() -> None:
    images = torch.zeros(400, 1, 41, 41)
    images[:200, :, 20, 14] = images[200:, :, 20, 16] = 1
    settings = AugmentationConfig(elastic=0.08)
    halves = [augment_images(part, settings, torch.Generator().manual_seed(0)) for part in images.split(200)]
    columns = [(half.sum((1, 2)) * torch.arange(41)).sum(1) / half.sum((1, 2, 3)) for half in halves]
    moved = columns[0] - 14
    assert 0.08 * 41 / 2 < moved.abs().max() < 1.5 * 0.08 * 41
    assert abs(float(moved.mean())) < 0.3, "to either side"
    apart = columns[1] - columns[0]
    assert (apart > 1).all(), "nothing folds over"
    assert (apart < 3).all(), "neighbours stay neighbours"
    ends = augment_images(torch.ones(50, 1, 41, 41), settings, torch.Generator().manual_seed(1))
    assert ends[:, :, 10:31, 10:31].min() > 0.999


def test_the_sampling_grid_is_that_of_torch() -> None:
    settings = AugmentationConfig(rotate_degrees=30, scale=0.2, shear=0.2, shift=0.1, flip=True)
    transforms = _draw_transforms(7, settings, torch.Generator().manual_seed(0))
    expected = F.affine_grid(transforms, [7, 1, 5, 9], align_corners=False)
    torch.testing.assert_close(_compute_sampling_grid(transforms, 5, 9), expected)


def test_a_transform_is_a_rotation_of_scales_and_shears() -> None:
    def draw(rotate_degrees: float, scale: float, shear: float) -> torch.Tensor:
        settings = AugmentationConfig(rotate_degrees=rotate_degrees, scale=scale, shear=shear)
        return _draw_transforms(50, settings, torch.Generator().manual_seed(0))[:, :, :2]

    rotated, stretched = draw(60, 0, 0), draw(0, 0.2, 0.3)
    torch.testing.assert_close(draw(60, 0.2, 0.3), rotated @ stretched)
    torch.testing.assert_close(rotated.det(), torch.ones(50))
