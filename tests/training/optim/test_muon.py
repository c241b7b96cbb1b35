"""Muon against the singular value decomposition, torch's own for matrices, and AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from api_schemas.config import OptimizerConfig
from training.optim.muon import Muon, orthogonalise
from training.optim.optimizer import build_optimizer


def take_quadratic_steps(weight: Tensor, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Towards a fixed target, so that gradients differ from step to step."""
    target = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
    for _ in range(steps):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16), (1, 9)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_loses_its_scales(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert shape == (1, 9) or values.max() > 1.5 * values.min()
    rotated = left.T @ orthogonalise(1000 * matrix) @ right.T
    off_diagonal = rotated - torch.diag(rotated.diagonal())
    assert off_diagonal.abs().max() < 1e-9
    assert rotated.diagonal().min() > 0.65
    assert rotated.diagonal().max() < 1.2


def test_no_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_matrices_move_as_with_torchs_own(shape: tuple[int, int]) -> None:
    ours = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    theirs = copy.deepcopy(ours)
    start = ours.detach().clone()
    take_quadratic_steps(ours, Muon([{"params": [ours], "orthogonal": True}], lr=0.02, weight_decay=0.1), 5)
    take_quadratic_steps(theirs, torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1), 5)
    moved = (ours - start).norm()
    assert moved > 0.1
    assert (ours - theirs).norm() < 0.02 * moved  # theirs iterates in bfloat16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_of_its_rows(layout: torch.memory_format) -> None:
    kernel = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    matrix = nn.Parameter(kernel.flatten(1).clone())
    weight = nn.Parameter(kernel.clone(memory_format=layout))
    for value in (matrix, weight):
        optimizer = Muon([{"params": [value], "orthogonal": True}], lr=0.1, fused=True)
        for factor in (1.0, -0.3):
            value.grad = (factor * value.detach().square()).clone()
            optimizer.step()
    torch.testing.assert_close(weight.flatten(1), matrix, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(weight, kernel)


def test_other_groups_move_as_with_adamw() -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(4))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    matrix = nn.Parameter(torch.eye(3))
    muon = Muon([{"params": [matrix], "orthogonal": True}, {"params": [ours]}], lr=0.01, weight_decay=0.1)
    take_quadratic_steps(ours, muon, 4)
    take_quadratic_steps(theirs, torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1), 4)
    assert torch.equal(ours, theirs)
    assert torch.equal(matrix, torch.eye(3))  # it had no gradient


def test_what_is_looked_up_by_number_is_not_orthogonalise() -> None:
    table, matrix = nn.Embedding(50, 8), nn.Linear(8, 4)
    network = nn.Sequential(table, matrix)
    settings = OptimizerConfig(name="muon", lr=0.003, matrix_lr=0.05)
    groups = {
        group["name"]: group for group in build_optimizer(network, nn.Linear(2, 2), settings).param_groups
    }
    assert list(groups) == ["matrices", "weights", "biases and norms", "loss"]
    assert groups["matrices"]["params"] == [matrix.weight]
    assert groups["weights"]["params"] == [table.weight]
    assert (groups["matrices"]["lr"], groups["weights"]["lr"]) == (0.05, 0.003)
    assert [name for name, group in groups.items() if group.get("orthogonal")] == ["matrices"]
