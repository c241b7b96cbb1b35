"""Augmentation: random changes of a batch of images; background is 0 (``training.data.image_rule``).

On the device of the images, each kind as few passes over the whole batch: geometry as one sampling grid,
colours as one matrix an image, blur as two products with banded matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.data_config import AugmentationConfig
from training.runtime.device import send_to_device

GRID_POINTS = 4  # a side, which an elastic distortion moves
WIDEST = 4 / 3  # of what a crop leaves, by the image's own shape: width to height or height to width
HUE_SHARE = 1 / 4  # of the fraction that the other colours change by, as in SimCLR (arXiv 2002.05709)
BLURRED = 0.5  # of the images
# luma and the two differences of colour (NTSC's YIQ): a turn of the last two is a turn of the hue
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def augment_images(
    images: Tensor,
    settings: AugmentationConfig,
    generator: torch.Generator,
    scale: Sequence[Tensor] = (),
) -> Tensor:
    """Each image changed by its own draw; float [n, c, h, w] to the same shape.

    All randomness comes from ``generator``, so a step is repeatable from its number alone.

    Args:
        scale: mean and deviation, float [c, 1, 1] each, that the images were normalised by from 0 to 1.
    """
    send = partial(send_to_device, device=images.device)
    if settings.colour:
        images = _change_colours(images, settings.colour, generator, scale)
    geometric = (settings.rotate_degrees, settings.scale, settings.shear, settings.shift, settings.elastic)
    if any(geometric) or settings.flip or settings.crop:
        transforms = _draw_transforms(len(images), settings, generator, images.shape[2] / images.shape[3])
        if settings.crop:
            transforms = _draw_crops(len(images), settings.crop, generator) @ _append_row(transforms)
        transforms = send(transforms)
        grid = _compute_sampling_grid(transforms, *images.shape[2:])
        if settings.elastic:
            grid = grid + send(_draw_distortions(images, settings.elastic, generator))
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if settings.blur:
        images = _blur(images, settings.blur, generator)
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


def _draw_transforms(
    n: int, settings: AugmentationConfig, generator: torch.Generator, aspect: float = 1.0
) -> Tensor:
    """Float [n, 2, 3]: output coordinates to input coordinates, both in [-1, 1].

    A rotation of scales and shears: ``[[cos, -sin], [sin, cos]] @ [[scale_x, shear_x], [shear_y, scale_y]]``,
    in which a unit is as long across as down.

    Args:
        aspect: of the images, height to width.
    """
    angle = _draw_uniform(n, generator) * math.radians(settings.rotate_degrees)
    shear_x, shear_y = (_draw_uniform(n, generator) * settings.shear for _ in range(2))
    scale_x, scale_y = (1 + _draw_uniform(n, generator) * settings.scale for _ in range(2))
    shift_x, shift_y = (_draw_uniform(n, generator) * 2 * settings.shift for _ in range(2))
    if settings.flip:
        scale_x = scale_x * (torch.randint(0, 2, (n,), generator=generator) * 2 - 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    across, down = (cos * shear_x - sin * scale_y) * aspect, (sin * scale_x + cos * shear_y) / aspect
    rows_x = torch.stack([cos * scale_x - sin * shear_y, across, shift_x], dim=1)
    rows_y = torch.stack([down, sin * shear_x + cos * scale_y, shift_y], dim=1)
    return torch.stack([rows_x, rows_y], dim=1)


def _append_row(transforms: Tensor) -> Tensor:
    """Affine maps [n, 2, 3] as matrices [n, 3, 3]."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(transforms), 1, 3)
    return torch.cat([transforms, last], dim=1)


def _draw_crops(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Float [n, 2, 3]: from an image to a random window of it, of ``1 - fraction`` of its area at least.

    As torchvision's ``RandomResizedCrop``: the area uniform, the ratio of the sides uniform in its logarithm;
    but a window that would be longer than the image becomes as long and wider, instead of another draw.
    """
    area = 1 - fraction * torch.rand(n, generator=generator)
    ratio = torch.exp(_draw_uniform(n, generator) * math.log(WIDEST))
    across = (area * ratio).sqrt().clamp(max=1).maximum(area)
    sides = torch.stack([across, area / across], dim=1)
    centres = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides)
    return torch.cat([torch.diag_embed(sides), centres[:, :, None]], dim=2)


def _change_colours(
    images: Tensor, strength: float, generator: torch.Generator, scale: Sequence[Tensor]
) -> Tensor:
    """Brightness, contrast, saturation and hue changed at random, as one affine map of each image's colours.

    In that order; what leaves the range from black to white is cut off at the end alone, not after each
    change. Grey images have brightness and contrast.
    """
    n, channels = images.shape[:2]
    mean, deviation = (
        (part.flatten() for part in scale) if scale else (images.new_zeros(1), images.new_ones(1))
    )
    factors = 1 + strength * torch.stack([_draw_uniform(n, generator) for _ in range(3)])
    angles = _draw_uniform(n, generator) * strength * HUE_SHARE * 2 * math.pi
    brightness, contrast, saturation = send_to_device(factors, images.device)[:, :, None, None]
    weights = YIQ[0].to(images) if channels == 3 else images.new_ones(1)
    mixing = torch.eye(channels, device=images.device).expand(n, -1, -1)
    if channels == 3:
        turns = send_to_device(_turn_hues(angles), images.device)
        mixing = turns @ (saturation * mixing + (1 - saturation) * weights)
    level = weights @ (images.mean((2, 3)) * deviation + mean).T  # of grey, which mixing does not change
    grey = level * brightness.flatten()
    matrix = brightness * contrast * mixing
    offset = ((1 - contrast.flatten()) * grey)[:, None].expand(n, channels)
    # the same of what is normalised: (matrix (deviation x + mean) + offset - mean) / deviation
    offset = (matrix @ mean.expand(channels) + offset - mean) / deviation
    matrix = matrix * deviation.expand(channels) / deviation.expand(channels)[:, None]
    changed = torch.baddbmm(offset[:, :, None], matrix, images.flatten(2)).view_as(images)
    black, white = ((end - mean) / deviation for end in (0.0, 1.0))
    return changed.clamp_(black.view(-1, 1, 1), white.view(-1, 1, 1))


def _turn_hues(angles: Tensor) -> Tensor:
    """Float [n, 3, 3]: colours whose hue is turned by each angle, in radians, and whose luma stays."""
    turns = torch.eye(3).repeat(len(angles), 1, 1)
    cos, sin = torch.cos(angles), torch.sin(angles)
    turns[:, 1, 1], turns[:, 1, 2], turns[:, 2, 1], turns[:, 2, 2] = cos, -sin, sin, cos
    turned: Tensor = torch.linalg.inv(YIQ) @ turns @ YIQ
    return turned


def _blur(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Half of the images, drawn at random, under a Gaussian whose deviation is drawn up to that fraction of
    the shorter side; at the borders its weights are those inside."""
    n, _, height, width = images.shape
    deviations = torch.rand(n, generator=generator) * fraction * min(height, width)
    is_blurred = torch.rand(n, generator=generator) < BLURRED
    rows = send_to_device(torch.nonzero(is_blurred).flatten(), images.device)
    deviations = send_to_device(deviations[is_blurred], images.device).clamp(min=1e-3)
    down, across = (_build_blur(deviations, side) for side in (height, width))
    blurred = torch.einsum("nij,ncjk,nlk->ncil", down, images[rows], across)
    return images.index_copy(0, rows, blurred)


def _build_blur(deviations: Tensor, side: int) -> Tensor:
    """Float [n, side, side]: rows of Gaussian weights around the diagonal, each of sum 1."""
    places = torch.arange(side, device=deviations.device)
    distances = (places[:, None] - places) / deviations[:, None, None]
    return torch.softmax(-(distances**2) / 2, dim=2)


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
