"""Batch normalisation over several processes, in one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from common.errors import ConfigError
from training.models.sync_batch_norm import synchronise_batch_norms


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: normalises, then drops, then activates."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Dropout(0.0), nn.LeakyReLU(0.5)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        activated: Tensor = self.act(self.drop(super().forward(input)))
        return activated


class Scaled(nn.BatchNorm2d):
    """Does something of its own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return 2 * super().forward(input)


@pytest.mark.parametrize("layer", [BatchNormAct2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)])
def test_a_joined_batch_norm_does_what_the_plain_one_did(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)  # one process: the sum is its own
    plain, joined = nn.Sequential(copy.deepcopy(layer)), nn.Sequential(copy.deepcopy(layer))
    synchronise_batch_norms(joined)
    inputs = 3 + torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert joined.state_dict().keys() == plain.state_dict().keys()
    for training in (True, False):
        torch.testing.assert_close(joined.train(training)(inputs), plain.train(training)(inputs))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(joined.state_dict()[name], value, msg=name)


def test_a_batch_norm_of_unknown_kind_is_refused_with_several_processes() -> None:
    with pytest.raises(ConfigError, match="its Scaled layers do not fit several processes"):
        synchronise_batch_norms(nn.Sequential(Scaled(4)))
