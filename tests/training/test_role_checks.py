"""Queries against items: what is refused before data is read, and what each loss compares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from api_schemas.config import Config
from common.errors import ConfigError
from training.config_checks import check_config
from training.losses import LOSSES
from training.losses.item_loss import ItemLoss
from training.objective.objective import Objective

DATA = {"kind": "embeddings", "path": "vectors.npz", "role_column": "role"}
FITTING = sorted(
    name
    for name, loss in LOSSES.items()
    if loss.takes_references
    and not (loss.needs_hierarchy or loss.needs_teacher or issubclass(loss, ItemLoss))
)


def build_config(**sections: Any) -> Config:
    given = {"data": DATA, "model": {"towers": 2}, "loss": "nt_xent", **sections}
    return Config.model_validate(given)


def test_two_towers_with_a_loss_of_pairs_are_fine() -> None:
    check_config(build_config())


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"data": {"kind": "embeddings", "path": "a.npz"}}, "model.towers: 2 are for queries and items"),
        ({"memory": {"name": "cross_batch", "size": 64}}, "memory: does not go with data.role_column"),
        ({"model": {"towers": 2, "embedding_dim": 8, "sizes": [4]}}, "model.sizes: does not go"),
        ({"optimizer": {"accumulate": 2}}, "optimizer.accumulate: does not go"),
        ({"sampler": "shuffled"}, "batches have queries and items of each class, found 'shuffled'"),
        ({"sampler": {"items_per_class": 3, "batch_size": 12}}, "found 3: set an even number"),
        ({"loss": "arcface"}, "loss: 'arcface' cannot compare queries with items alone"),
        ({"loss": "isogclr"}, "loss: 'isogclr' cannot compare queries with items alone"),
    ],
)
def test_what_has_no_meaning_between_roles_is_refused(sections: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_config(build_config(**sections))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("name", FITTING)
def test_a_loss_compares_queries_with_items_both_ways(name: str) -> None:
    torch.manual_seed(0)
    objective = Objective(build_config(loss=name), 6)
    vectors = F.normalize(torch.randn(24, 64), dim=1)
    labels, asks = torch.arange(24) % 6, torch.arange(24) >= 12
    loss = objective.loss.losses[0]

    def compare(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = loss(
            vectors[queries], labels[queries], None, vectors[references], labels[references]
        )
        return value

    leaf = vectors.clone().requires_grad_()
    torch.manual_seed(1)
    total = objective(leaf, labels, is_query=asks)
    total.backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert (leaf.grad.abs().sum(1) > 0).float().mean() > 0.5
    if not any(True for _ in loss.buffers()):  # a loss that remembers gives another value the second time
        torch.manual_seed(1)
        torch.testing.assert_close(total, (compare(asks, ~asks) + compare(~asks, asks)) / 2)


def test_a_pair_of_two_queries_is_never_compared() -> None:
    """Two queries of one class far apart do not change the loss of queries that fit their items."""
    objective = Objective(build_config(loss="contrastive"), 2)
    items, labels, asks = (
        torch.eye(64)[:2],
        torch.tensor([0, 1, 0, 1]),
        torch.tensor([True, True, False, False]),
    )
    value = objective(torch.cat([items, items]), labels, is_query=asks)
    # items of two classes at a distance of 1.4 are beyond the margin: there is nothing left to learn
    assert float(value) == pytest.approx(0.0, abs=1e-6)
