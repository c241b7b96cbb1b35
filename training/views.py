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
        views = [turned for view in views for turned in _quarter_turns(view)]
    return torch.cat(views)


def _quarter_turns(images: Tensor) -> list[Tensor]:
    """By 0, 90, 180 and 270 degrees; ONNX has no operator for that, but for what it is made of."""
    across = images.transpose(2, 3)
    return [images, across.flip(2), images.flip((2, 3)), across.flip(3)]


def joined_views(embeddings: Tensor, count: int) -> Tensor:
    """Float [count * n, d], unit rows in the order of ``views_of``, to [n, count * d], unit rows.

    The cosine of two joined rows is the mean of the views' cosines: what several networks would give that
    agree on the truth and differ in their errors, from one network.
    """
    apart = embeddings.view(count, -1, embeddings.shape[1]).transpose(0, 1)
    return apart.flatten(1) / math.sqrt(count)
