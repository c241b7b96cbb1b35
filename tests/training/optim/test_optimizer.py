"""The course of the learning rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from api_schemas.config import Config, ScheduleConfig
from training.losses import PartialFC
from training.objective.objective import Objective
from training.optim.optimizer import build_optimizer, compute_lr_factor


@pytest.mark.parametrize("shape", ["cosine", "one_cycle", "constant"])
def test_the_rate_rises_then_falls_within_its_bounds(shape: str) -> None:
    schedule = ScheduleConfig.model_validate({"shape": shape, "warmup": 0.1})
    factors = [compute_lr_factor(step, 100, schedule) for step in range(100)]
    assert min(factors) > 0
    assert max(factors) == pytest.approx(1)
    top = int(np.argmax(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(1 if shape == "constant" else 0.01)


def build_groups(loss: object, **optimizer: object) -> list[tuple[float, float]]:
    """Rate and eps of the losses' own groups, for a network of rate 0.001."""
    config = Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": "x.npz"},
            "loss": loss,
            "optimizer": {"lr": 1e-3, **optimizer},
        }
    )
    network = torch.nn.Linear(4, config.model.view_dim)
    groups = build_optimizer(network, Objective(config, 3), config.optimizer).param_groups
    return [(group["lr"], group.get("eps", 0.0)) for group in groups if group["name"] == "loss"]


def test_class_vectors_move_at_their_authors_rate_unless_told_otherwise() -> None:
    names = ["proxy_anchor", "mean_field_contrastive", "proxy_nca_plus_plus", "normalized_softmax", "triplet"]
    rates, eps = zip(*build_groups(names), strict=True)
    assert rates == pytest.approx((0.1, 0.01, 100.0, 0.01))
    assert eps == (1e-8, 1e-8, 1.0, 1e-8)
    assert [rate for rate, _ in build_groups(names, loss_lr_factor=5)] == pytest.approx([5e-3] * 4)
    told = [{"name": "proxy_anchor", "lr_factor": 3}, "normalized_softmax"]
    assert [rate for rate, _ in build_groups(told, loss_lr_factor=5)] == pytest.approx([3e-3, 5e-3])
    assert [rate for rate, _ in build_groups("proxy_anchor", name="sgd")] == pytest.approx([0.1])
    assert [rate for rate, _ in build_groups("proxy_anchor", name="muon")] == pytest.approx([0.1])


def test_the_centres_of_partial_fc_follow_the_schedule() -> None:
    moved = []
    for factor in (1.0, 0.25, 0.0):
        torch.manual_seed(0)
        loss = PartialFC(4, 3, sample_rate=1.0)
        before = loss.centers.clone()
        loss(torch.eye(3), torch.arange(3)).backward()
        loss.end_step(factor)
        moved.append(loss.centers - before)
    assert moved[0].abs().max() > 0
    torch.testing.assert_close(moved[1], moved[0] / 4)
    assert moved[2].abs().max() == 0
