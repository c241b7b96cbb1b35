"""Augmentation of a batch of images."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from api_schemas.data_config import AugmentationConfig
from training.batches.augmentation import (
    _build_blur,
    _compute_sampling_grid,
    _draw_crops,
    _draw_transforms,
    augment_images,
)


def test_no_augmentation_changes_nothing_and_each_kind_changes_something() -> None:
    images = torch.rand(4, 1, 16, 16)
    assert torch.equal(augment_images(images, AugmentationConfig(), torch.Generator()), images)
    numbers = {name: 0.3 for name, value in AugmentationConfig() if not isinstance(value, bool)}
    for kind, value in (numbers | {"rotate_degrees": 20.0, "blur": 0.1}).items():
        settings = AugmentationConfig.model_validate({kind: value})
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


def test_a_turned_rectangle_keeps_its_lengths() -> None:
    image = torch.zeros(400, 1, 21, 63)
    image[:, :, 10, 36] = 1  # 5 pixels beside the centre
    turned = augment_images(image, AugmentationConfig(rotate_degrees=180), torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(63) - 31.0, indexing="ij")
    ink = turned.sum((1, 2, 3))
    distance = (turned[:, 0] * (rows**2 + columns**2).sqrt()).sum((1, 2)) / ink
    assert (distance - 5).abs().max() < 0.3
    assert (ink - 1).abs().max() < 0.4, "a point between pixels"
    assert (turned[:, 0].amax(2).argmax(1) - 10).abs().max() == 5, "some are turned by 90 degrees"


def test_a_crop_is_a_window_of_the_image_that_fills_it() -> None:
    n, fraction = 4_000, 0.8
    settings, generator = AugmentationConfig(crop=fraction), torch.Generator().manual_seed(0)
    _draw_transforms(n, settings, generator)
    windows = _draw_crops(n, fraction, generator)
    sides, centres = windows[:, :, :2].diagonal(dim1=1, dim2=2), windows[:, :, 2]
    assert (sides <= 1).all()
    assert (centres.abs() + sides <= 1 + 1e-6).all(), "inside"
    area = sides.prod(1)
    assert area.min() >= 1 - fraction - 1e-6
    assert abs(float(area.mean()) - 0.6) < 0.01, "uniform"
    ratio = sides[:, 0] / sides[:, 1]
    assert 0.73 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.37
    gradient = torch.linspace(0, 1, 50).expand(n, 1, 50, 50)
    cropped = augment_images(gradient, settings, torch.Generator().manual_seed(0))
    left, right = cropped[:, 0, 25, 1], cropped[:, 0, 25, -2]
    torch.testing.assert_close(right - left, sides[:, 0] * 47 / 49, atol=0.02, rtol=0)
    torch.testing.assert_close((left + right) / 2, 0.5 + centres[:, 0] / 2, atol=0.02, rtol=0)
    flipped = augment_images(
        gradient, AugmentationConfig(crop=fraction, flip=True), torch.Generator().manual_seed(1)
    )
    rises = flipped[:, 0, 25, -2] > flipped[:, 0, 25, 1]
    assert 0.45 < float(rises.float().mean()) < 0.55
    assert (flipped[:, 0, 5:-5, 5:-5] > 0.001).all(), "no background comes in"


def change_naively(pixel: np.ndarray, level: float, factors: tuple[float, ...], angle: float) -> np.ndarray:
    """Brightness, contrast around the image's grey level, saturation and hue of one pixel, as defined."""
    brightness, contrast, saturation = factors
    pixel = pixel * brightness
    pixel = contrast * pixel + (1 - contrast) * level * brightness
    luma = pixel @ [0.299, 0.587, 0.114]
    pixel = saturation * pixel + (1 - saturation) * luma
    y, i, q = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]) @ pixel
    i, q = i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle)
    return np.linalg.solve(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], [y, i, q]
    )


@pytest.mark.parametrize("is_normalised", [True, False])
def test_colours_change_as_they_are_defined_and_stay_between_black_and_white(is_normalised: bool) -> None:
    strength, n = 0.4, 6
    pixels = torch.rand(n, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    scale = (torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25])) if is_normalised else ()
    mean, deviation = (
        (part.view(3, 1, 1) for part in scale) if scale else (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    )
    changed = augment_images(
        (pixels - mean) / deviation,
        AugmentationConfig(colour=strength),
        torch.Generator().manual_seed(7),
        [mean, deviation] if is_normalised else (),
    )
    changed = changed * deviation + mean
    draws = torch.rand(4, n, generator=torch.Generator().manual_seed(7)) * 2 - 1
    for image in range(n):
        factors = tuple((1 + strength * draws[:3, image]).tolist())
        angle = float(draws[3, image]) * strength / 4 * 2 * np.pi
        level = float(pixels[image].mean((1, 2)) @ torch.tensor([0.299, 0.587, 0.114]))
        for row in range(4):
            for column in range(5):
                wanted = change_naively(pixels[image, :, row, column].double().numpy(), level, factors, angle)
                np.testing.assert_allclose(changed[image, :, row, column], np.clip(wanted, 0, 1), atol=2e-4)


def test_a_hue_turns_as_far_as_it_should() -> None:
    red = torch.tensor([0.6, 0.35, 0.35]).view(1, 3, 1, 1).expand(2_000, 3, 2, 2)
    changed = augment_images(red, AugmentationConfig(colour=0.4), torch.Generator().manual_seed(0))
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in changed[:, :, 0, 0].tolist()])
    hues = (hues + 0.5) % 1 - 0.5
    assert 0.08 < hues.max() < 0.14, "a tenth of a turn"
    assert -0.15 < hues.min() < -0.08
    grey = torch.rand(50, 1, 8, 8)
    assert (augment_images(grey, AugmentationConfig(colour=0.4), torch.Generator()) <= 1).all()


def test_a_blur_is_gaussian_and_keeps_what_is_even() -> None:
    point = torch.zeros(300, 1, 31, 41)
    point[:, :, 15, 20] = 1
    blurred = augment_images(point, AugmentationConfig(blur=0.1), torch.Generator().manual_seed(0))
    is_blurred = blurred[:, 0, 15, 20] < 0.999
    assert 0.35 < float(is_blurred.float().mean()) < 0.6
    torch.testing.assert_close(blurred[~is_blurred], point[~is_blurred], atol=1e-3, rtol=0)
    places = torch.arange(31) - 15.0
    spread = ((blurred[:, 0].sum(2) * places**2).sum(1) / blurred.sum((1, 2, 3))).sqrt()
    assert 2.5 < spread.max() < 3.2, "a tenth of the shorter side"
    assert (blurred.sum((1, 2, 3)) - 1).abs().max() < 0.02
    even = augment_images(torch.ones(50, 2, 9, 12), AugmentationConfig(blur=0.1), torch.Generator())
    torch.testing.assert_close(even, torch.ones_like(even))
    weights = _build_blur(torch.tensor([2.0]), 9)[0]
    expected = np.exp(-((np.arange(9)[:, None] - np.arange(9)) ** 2) / 8)
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), rtol=1e-5)
