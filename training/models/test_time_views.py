"""Test-time views: an image embedded together with its rotations and flips, up to eight views."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def make_views(images: Tensor, count: int) -> Tensor:
    """Float [n, c, s, s] to [count * n, c, s, s]: the images, then all of them in each other view.

    1 is the image alone, 2 adds its flip, 4 are the rotations by quarter turns, 8 those of the flip too.
    """
    views = [images, images.flip(3)] if count in (2, 8) else [images]
    if count in (4, 8):
        views = [rotate_quarters(view, quarters) for view in views for quarters in range(4)]
    return torch.cat(views)


def join_views(embeddings: Tensor, count: int) -> Tensor:
    """Float [count * n, d], unit rows in the order of ``make_views``, to [n, count * d], unit rows.

    The cosine of two joined rows is the mean of the views' cosines, as of an ensemble of networks that
    agree on the class and differ in their errors, from one network.
    """
    by_item = embeddings.view(count, -1, embeddings.shape[1]).transpose(0, 1)
    return by_item.flatten(1) / math.sqrt(count)


def rotate_quarters(images: Tensor, quarters: int) -> Tensor:
    """All images [n, c, s, s] rotated by 0 to 3 quarter turns; ONNX has no operator for rot90."""
    rotated = images.transpose(2, 3) if quarters % 2 else images
    axes = ((), (2,), (2, 3), (3,))[quarters]
    return rotated.flip(axes) if axes else rotated
