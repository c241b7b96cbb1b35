"""Miners of the library under checked parameters."""

from __future__ import annotations

import pytest
import torch

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import batch, make
from training.objective.miners import MINERS, build_miner, list_miners


@pytest.mark.parametrize("name", sorted(MINERS))
def test_every_miner_chooses_indices(name: str) -> None:
    items, labels = batch()
    indices = build_miner(NamedPart(name=name))(items.detach(), labels)
    assert len(indices) in (3, 4)
    assert any(line.startswith(name) for line in list_miners())
    assert torch.isfinite(make("triplet")(items, labels, indices))


def test_unknown_miners_and_parameters_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_hard'"):
        build_miner(NamedPart(name="batch_hart"))
    with pytest.raises(ConfigError, match="did you mean 'epsilon'"):
        build_miner(NamedPart(name="multi_similarity", epsilom=0.1))
