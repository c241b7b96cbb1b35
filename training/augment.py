"""Random changes of a batch of images on tensors; background is 0 (see ``training.data.images.rule_for``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.config import AugmentationConfig

BENDS = 4  # points a side that an elastic distortion moves


def augmented(images: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Each image changed by its own draw; float [n, c, h, w] to the same shape.

    All randomness comes from ``generator``, so a step is repeatable from its number alone.
    """
    moves = (settings.rotate_degrees, settings.scale, settings.shear, settings.shift, settings.elastic)
    if any(moves) or settings.flip:
        transforms = _transforms(len(images), settings, generator).to(images.device)
        grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
        if settings.elastic:
            grid = grid + _bends(images, settings.elastic, generator).to(images.device)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if settings.brightness:
        factors = 1 + settings.brightness * _uniform(len(images), generator)
        images = images * factors.view(-1, 1, 1, 1).to(images.device)
    if settings.noise:
        images = images + settings.noise * torch.randn(images.shape, generator=generator).to(images.device)
    if settings.erase:
        images = images * _holes(images, settings.erase, generator).to(images)
    return images


def rotated_quarters(images: Tensor, quarters: Tensor) -> Tensor:
    """Each image turned by its number of quarter turns, int [n] in 0..3; images must be square."""
    turned = images.clone()
    for quarter in (1, 2, 3):
        rows = quarters == quarter
        turned[rows] = quarter_turned(images[rows], quarter)
    return turned


def quarter_turned(images: Tensor, quarters: int) -> Tensor:
    """All images [n, c, s, s] turned by 0 to 3 quarters; ONNX has no operator for rot90."""
    turned = images.transpose(2, 3) if quarters % 2 else images
    axes = ((), (2,), (2, 3), (3,))[quarters]
    return turned.flip(axes) if axes else turned


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Those that are chosen, bool [n], with left and right exchanged."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    """Float [n], even in [-1, 1]."""
    return torch.rand(n, generator=generator) * 2 - 1


def _transforms(n: int, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Float [n, 2, 3]: output coordinates to input coordinates, both in [-1, 1]."""
    angle = _uniform(n, generator) * math.radians(settings.rotate_degrees)
    shear_x, shear_y = (_uniform(n, generator) * settings.shear for _ in range(2))
    scale_x, scale_y = (1 + _uniform(n, generator) * settings.scale for _ in range(2))
    shift_x, shift_y = (_uniform(n, generator) * 2 * settings.shift for _ in range(2))
    if settings.flip:
        scale_x = scale_x * (torch.randint(0, 2, (n,), generator=generator) * 2 - 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows_x = torch.stack([cos * scale_x - shear_x * sin, shear_x * cos - sin * scale_y, shift_x], dim=1)
    rows_y = torch.stack([sin * scale_x + shear_y * cos, cos * scale_y + shear_y * sin, shift_y], dim=1)
    return torch.stack([rows_x, rows_y], dim=1)


def _bends(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Float [n, h, w, 2] to add to a sampling grid: smooth between ``BENDS`` x ``BENDS`` points.

    The elastic distortion of Simard, Steinkraus and Platt (ICDAR 2003) with few points for a wide filter.
    """
    points = _uniform(len(images) * 2 * BENDS**2, generator).view(len(images), 2, BENDS, BENDS)
    bends = F.interpolate(2 * share * points, images.shape[2:], mode="bicubic", align_corners=True)
    return bends.permute(0, 2, 3, 1)


def _holes(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """1 everywhere but in one square a side ``share`` of the image's, at a place of its own per image."""
    n, _, height, width = images.shape
    side = max(1, round(share * min(height, width)))
    top = torch.randint(0, height - side + 1, (n, 1, 1, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (n, 1, 1, 1), generator=generator)
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return ~inside
