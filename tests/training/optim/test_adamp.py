"""AdamP against its formula in plain loops, and against AdamW where nothing is scale-invariant."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.optim.adamp import AdamP


def take_steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, invariant: bool, steps: int) -> None:
    target = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
    inputs = torch.randn(16, weight.shape[-1], generator=torch.Generator().manual_seed(4))
    for _ in range(steps):
        optimizer.zero_grad()
        if invariant:
            cosines = F.normalize(inputs) @ F.normalize(weight.flatten(1), dim=1).T
            F.cross_entropy(9 * cosines, torch.arange(16) % len(weight)).backward()
        else:
            (weight - target).square().sum().backward()
        optimizer.step()


def compute_naive_step(weight: Tensor, gradient: Tensor, lr: float, decay: float) -> Tensor:
    """The first step, in which the corrected mean is the gradient and the corrected square its square."""
    rows, moved = [], gradient / (gradient.abs() + 1e-8)
    largest = max(
        abs(float(row @ of_weight / (row.norm() * of_weight.norm())))
        for row, of_weight in zip(gradient, weight, strict=True)
    )
    invariant = largest < 0.1 / math.sqrt(weight.shape[1])
    for row, of_weight in zip(moved, weight, strict=True):
        unit = of_weight / of_weight.norm()
        along = (row @ unit) * unit if invariant else torch.zeros_like(unit)
        rows.append(of_weight * (1 - lr * decay * (0.1 if invariant else 1)) - lr * (row - along))
    return torch.stack(rows)


@pytest.mark.parametrize("invariant", [True, False])
def test_the_first_step_is_that_of_the_formula(invariant: bool) -> None:
    weight = nn.Parameter(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
    before = weight.detach().clone()
    take_steps(weight, AdamP([weight], lr=0.01, weight_decay=0.1), invariant, 1)
    assert weight.grad is not None
    expected = compute_naive_step(before, weight.grad, 0.01, 0.1)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_scale_invariant_weight_grows_more_slowly_than_with_adamw() -> None:
    ours = nn.Parameter(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
    theirs = copy.deepcopy(ours)
    start = float(ours.detach().norm())
    take_steps(ours, AdamP([ours], lr=0.05, weight_decay=0.0), True, 40)
    take_steps(theirs, torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.0), True, 40)
    grown, usual = (float(weight.detach().norm()) - start for weight in (ours, theirs))
    assert grown < 0.7 * usual


def test_other_weights_move_as_with_adamw() -> None:
    for shape in ((5, 6), (7,)):
        ours = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(2)))
        theirs = copy.deepcopy(ours)
        take_steps(ours, AdamP([ours], lr=0.01, weight_decay=0.1), False, 5)
        take_steps(theirs, torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1), False, 5)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_its_state_goes_on_where_it_stopped() -> None:
    weight = nn.Parameter(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
    first = AdamP([weight], lr=0.01)
    take_steps(weight, first, True, 3)
    copied = copy.deepcopy(weight)
    second = AdamP([copied], lr=0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    take_steps(weight, first, True, 2)
    take_steps(copied, second, True, 2)
    assert torch.equal(weight, copied)
