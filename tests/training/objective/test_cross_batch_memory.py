"""The cross-batch memory: what it adds, keeps and refuses."""

from __future__ import annotations

import pytest
import torch

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import DIMENSION, NAMES, batch, compute_value_and_gradient, make
from training.losses import LOSSES
from training.objective.cross_batch_memory import CrossBatchMemory, build_memory
from training.objective.miners import build_miner


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_takes_a_memory(name: str) -> None:
    first, labels = batch()
    second, _ = batch(seed=1)
    loss = make(name)
    memory = CrossBatchMemory(loss, DIMENSION, size=32).double()
    plain = loss(first, labels)
    torch.testing.assert_close(memory(first, labels), plain)  # nothing to remember yet
    value, gradient = compute_value_and_gradient(memory, second, labels)
    without, _ = compute_value_and_gradient(loss, second, labels)
    assert torch.isfinite(gradient).all()
    assert value != without
    if LOSSES[name].takes_references:
        against = loss(second, labels, None, first.detach(), labels)
    else:
        against = loss(torch.cat([second, first.detach()]), torch.cat([labels, labels]))
    torch.testing.assert_close(value, without + against.detach())


def test_the_memory_keeps_the_newest() -> None:
    memory = CrossBatchMemory(make("contrastive"), 2, size=5).double()
    for step in range(4):
        items = torch.full((2, 2), float(step + 1), dtype=torch.float64, requires_grad=True)
        memory(items, torch.tensor([step, step]))
    assert sorted(memory.labels.tolist()) == [1, 2, 2, 3, 3]
    memory(torch.ones(9, 2, dtype=torch.float64), torch.arange(9))  # larger than the memory
    assert sorted(memory.labels.tolist()) == [4, 5, 6, 7, 8]
    with torch.no_grad():
        memory(torch.ones(2, 2, dtype=torch.float64), torch.tensor([77, 77]))
    assert 77 not in memory.labels


def test_the_memory_waits_and_mines() -> None:
    items, labels = batch()
    memory = CrossBatchMemory(
        make("triplet"), DIMENSION, size=32, warmup=2, miner=build_miner(NamedPart(name="triplet_margin"))
    ).double()
    clean = make("triplet")(items, labels)
    torch.testing.assert_close(memory(items, labels), clean)
    torch.testing.assert_close(memory(items, labels), clean)
    assert memory(items, labels) > clean


def test_memory_errors_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'size'"):
        build_memory(NamedPart(name="cross_batch", sizes=3), make("triplet"), embedding_dim=4)
    with pytest.raises(ConfigError, match="size must be at least 1"):
        build_memory(NamedPart(name="cross_batch", size=0), make("triplet"), embedding_dim=4)
