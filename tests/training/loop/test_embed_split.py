"""Items through a network: as many at once as their bytes allow, and the same vectors however many."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from api_schemas.config import ModelConfig
from tests.training.runs import build_rule
from training.batches.batch_inputs import DeviceInputs
from training.data.items import Items
from training.loop import embed_split
from training.models.network import build_network


def test_large_items_go_through_the_network_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = build_rule((1, 16, 16))
    network = build_network(ModelConfig(backbone="conv4", embedding_dim=4), rule)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 1, 16, 16), dtype=np.uint8)
    items = Items(pixels, np.arange(10).astype(str), np.arange(10).astype(str))
    inputs = DeviceInputs(rule, torch.device("cpu"))
    sizes: list[int] = []

    def prepare(rows: np.ndarray) -> torch.Tensor:
        sizes.append(len(rows))
        return inputs(rows)

    whole = embed_split.embed_items(network, items, prepare, 8).vectors
    monkeypatch.setattr(embed_split, "MOST_BYTES", 3 * 4 * 16 * 16)
    parts = embed_split.embed_items(network, items, prepare, 8).vectors
    monkeypatch.setattr(embed_split, "MOST_BYTES", 1)
    alone = embed_split.embed_items(network, items, prepare, 8).vectors
    assert sizes == [8, 2, 3, 3, 3, 1, *[1] * 10]
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(alone, whole, atol=1e-6)
