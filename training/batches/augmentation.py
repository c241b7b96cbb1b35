"""Augmentation: random changes of a batch of images; background is 0 (``training.data.image_rule``)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.data_config import AugmentationConfig
from training.runtime.device import send_to_device

GRID_POINTS = 4  # a side, which an elastic distortion moves


def augment_images(images: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Each image changed by its own draw; float [n, c, h, w] to the same shape.

    All randomness comes from ``generator``, so a step is repeatable from its number alone.
    """
    send = partial(send_to_device, device=images.device)
    geometric = (settings.rotate_degrees, settings.scale, settings.shear, settings.shift, settings.elastic)
    if any(geometric) or settings.flip:
        transforms = send(_draw_transforms(len(images), settings, generator))
        grid = _compute_sampling_grid(transforms, *images.shape[2:])
        if settings.elastic:
            grid = grid + send(_draw_distortions(images, settings.elastic, generator))
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if settings.brightness:
        factors = 1 + settings.brightness * _draw_uniform(len(images), generator)
        images = images * send(factors.view(-1, 1, 1, 1))
    if settings.noise:
        noise = torch.randn(images.shape, generator=generator)
        images = images + settings.noise * send(noise)
    if settings.erase:
        images = images * send(_draw_erasures(images, settings.erase, generator))
    return images


def _draw_uniform(n: int, generator: torch.Generator) -> Tensor:
    """Float [n], uniform in [-1, 1]."""
    return torch.rand(n, generator=generator) * 2 - 1


def _draw_transforms(n: int, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Float [n, 2, 3]: output coordinates to input coordinates, both in [-1, 1].

    A rotation of scales and shears: ``[[cos, -sin], [sin, cos]] @ [[scale_x, shear_x], [shear_y, scale_y]]``.
    """
    angle = _draw_uniform(n, generator) * math.radians(settings.rotate_degrees)
    shear_x, shear_y = (_draw_uniform(n, generator) * settings.shear for _ in range(2))
    scale_x, scale_y = (1 + _draw_uniform(n, generator) * settings.scale for _ in range(2))
    shift_x, shift_y = (_draw_uniform(n, generator) * 2 * settings.shift for _ in range(2))
    if settings.flip:
        scale_x = scale_x * (torch.randint(0, 2, (n,), generator=generator) * 2 - 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows_x = torch.stack([cos * scale_x - sin * shear_y, cos * shear_x - sin * scale_y, shift_x], dim=1)
    rows_y = torch.stack([sin * scale_x + cos * shear_y, sin * shear_x + cos * scale_y, shift_y], dim=1)
    return torch.stack([rows_x, rows_y], dim=1)


def _compute_sampling_grid(transforms: Tensor, height: int, width: int) -> Tensor:
    """The grid of ``F.affine_grid`` without ``align_corners``, from rows and columns, in half the time."""
    across, down = (
        (torch.arange(size, device=transforms.device) * 2 + 1) / size - 1 for size in (width, height)
    )
    columns = transforms[:, :, 0, None] * across
    rows = transforms[:, :, 1, None] * down + transforms[:, :, 2, None]
    grid = transforms.new_empty(len(transforms), height, width, 2)
    for axis in (0, 1):
        torch.add(rows[:, axis, :, None], columns[:, axis, None, :], out=grid[..., axis])
    return grid


def _draw_distortions(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Float [n, h, w, 2] to add to a sampling grid: smooth between ``GRID_POINTS`` x ``GRID_POINTS`` points.

    The elastic distortion of Simard, Steinkraus and Platt (ICDAR 2003) with few points for a wide filter.
    """
    points = _draw_uniform(len(images) * 2 * GRID_POINTS**2, generator).view(
        len(images), 2, GRID_POINTS, GRID_POINTS
    )
    distortions = F.interpolate(2 * fraction * points, images.shape[2:], mode="bicubic", align_corners=True)
    return distortions.permute(0, 2, 3, 1)


def _draw_erasures(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """False in one square of each image, at a random position, its side that fraction of the image's; bool
    [n, 1, h, w]."""
    n, _, height, width = images.shape
    side = max(1, round(fraction * min(height, width)))
    top = torch.randint(0, height - side + 1, (n, 1, 1, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (n, 1, 1, 1), generator=generator)
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return ~inside
