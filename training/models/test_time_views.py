"""An image embedded together with its turned and mirrored views: one network asked up to eight times."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def views_of(images: Tensor, count: int) -> Tensor:
    """Float [n, c, s, s] to [count * n, c, s, s]: the images, then all of them in each other view.

    1 is the image alone, 2 adds the mirror image, 4 are the quarter turns, 8 those of the mirror image too.
    """
    views = [images, images.flip(3)] if count in (2, 8) else [images]
    if count in (4, 8):
        views = [quarter_turned(view, quarters) for view in views for quarters in range(4)]
    return torch.cat(views)


def joined_views(embeddings: Tensor, count: int) -> Tensor:
    """Float [count * n, d], unit rows in the order of ``views_of``, to [n, count * d], unit rows.

    The cosine of two joined rows is the mean of the views' cosines: what several networks would give that
    agree on the truth and differ in their errors, from one network.
    """
    apart = embeddings.view(count, -1, embeddings.shape[1]).transpose(0, 1)
    return apart.flatten(1) / math.sqrt(count)


def quarter_turned(images: Tensor, quarters: int) -> Tensor:
    """All images [n, c, s, s] turned by 0 to 3 quarters; ONNX has no operator for rot90."""
    turned = images.transpose(2, 3) if quarters % 2 else images
    axes = ((), (2,), (2, 3), (3,))[quarters]
    return turned.flip(axes) if axes else turned
