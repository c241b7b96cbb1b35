"""Additive margins on the target's cosine: the base of UNPG and Partial FC."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Margin = Literal["cosface", "arcface", "none"]
MARGINS: dict[str, float] = {"cosface": 0.35, "arcface": 0.5, "none": 0.0}
"""Usual margins: CosFace (arXiv 1801.09414) on the cosine, ArcFace (arXiv 1801.07698) in radians."""


def resolve_margin(base: Margin, margin: float | None) -> float:
    """The given margin, or the base's usual one; raises ValueError for an unknown base."""
    if base not in MARGINS:
        raise ValueError(f"base must be one of {', '.join(MARGINS)}, found {base!r}")
    return MARGINS[base] if margin is None else margin


def apply_margin(cosine: Tensor, labels: Tensor, base: Margin, margin: float) -> Tensor:
    """Cosines [n, c] with the target's made smaller; int [n] labels are columns.

    ArcFace past ``theta = pi - margin`` goes on as ``cos - margin sin(margin)``, so it stays monotonic.
    """
    if base == "none" or not margin:
        return cosine
    target = cosine.gather(1, labels[:, None])
    if base == "cosface":
        changed = target - margin
    else:
        inside = target.clamp(-1 + 1e-7, 1 - 1e-7)  # acos has no finite slope at its ends
        rotated = torch.cos(torch.acos(inside) + margin)
        changed = torch.where(target > -math.cos(margin), rotated, target - margin * math.sin(margin))
    return cosine.scatter(1, labels[:, None], changed)
