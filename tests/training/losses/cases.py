"""Batches and losses that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from api_schemas.yaml_config import NamedPart
from training.losses import LOSSES, Loss, TrainingClasses, build_loss

CLASSES = 5
DIMENSION = 8
NAMES = sorted(LOSSES)


def make(
    name: str,
    *,
    classes: int | TrainingClasses = CLASSES,
    dimension: int = DIMENSION,
    **parameters: Any,
) -> Loss:
    """A float64 loss with defaults, the same vectors every time; its state does not move by itself."""
    torch.manual_seed(7)
    known = TrainingClasses.build_placeholder(classes) if isinstance(classes, int) else classes
    loss = build_loss(NamedPart(name=name, **parameters), classes=known, embedding_dim=dimension)
    return loss.double().eval()


def batch(n: int = 15, seed: int = 0, dimension: int = DIMENSION) -> tuple[Tensor, Tensor]:
    """Float64 [n, d], not of unit length, with gradient, and labels with one class of a single item."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(n, dimension, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % (CLASSES - 1)
    labels[-1] = CLASSES - 1
    return items.requires_grad_(), labels


def compute_value_and_gradient(
    loss: Loss, items: Tensor, labels: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the items; random draws are the same every time."""
    items = items.detach().clone().requires_grad_()
    torch.manual_seed(3)
    value = loss(items, labels, *rest)
    (gradient,) = torch.autograd.grad(value, items, allow_unused=True)
    return value.detach(), torch.zeros_like(items) if gradient is None else gradient
