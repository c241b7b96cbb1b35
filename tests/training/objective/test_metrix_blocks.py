"""Metrix at a block of the backbone: what comes out of it is mixed, and goes through the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from api_schemas.config import Config, ModelConfig
from common.errors import ConfigError
from tests.training.runs import build_loop, build_rule, take_steps
from training.config_checks import check_config
from training.data.items import Items, Splits
from training.models.network import Network, build_network

MODELS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "conv4": ((1, 12, 12), {"widths": [8, 8, 16, 16], "residuals": [0, 0, 1, 0], "dropout": 0.1}),
    "resnet": ((1, 12, 12), {"widths": [8, 8, 16], "blocks": [1, 2, 1]}),
    "mlp": ((6,), {"hidden": [8, 9, 7]}),
}
BLOCKS = {"conv4": 4, "resnet": 4, "mlp": 3}


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_of_a_chain_are_the_backbone(name: str) -> None:
    shape, parameters = MODELS[name]
    model = ModelConfig.model_validate({"backbone": name, "embedding_dim": 4, **parameters})
    network = build_network(model, build_rule(shape)).eval()
    assert len(network.backbone.chain) == BLOCKS[name]
    inputs = torch.randn(3, *shape)
    whole = network.extract_features(inputs)
    for block in range(1, BLOCKS[name] + 1):
        values = network.extract_features(inputs, block)
        assert (values.shape == whole.shape) == (values.shape[1:] == network.backbone.feature_shape)
        torch.testing.assert_close(network.finish_features(values, block), whole)


def build_config(path: Path, **mixup: Any) -> Config:
    return Config.model_validate(
        {
            "data": {"kind": "images", "path": str(path)},
            "model": {"backbone": "conv4", "widths": [8, 8, 8], "embedding_dim": 8},
            "loss": "contrastive",
            "mixup": {"name": "metrix", "level": "feature", "kind": "positive_negative", **mixup},
            "sampler": {"batch_size": 16, "items_per_class": 4},
        }
    )


@pytest.mark.parametrize("block", [1, 2, 3])
def test_what_a_block_gives_is_mixed_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 6)
    images = random.integers(0, 255, (36, 1, 12, 12)).astype(np.uint8)
    items = Items(images, labels.astype(np.str_), np.arange(36).astype(np.str_))
    loop = build_loop(
        build_config(tmp_path, block=block), Splits(items, None, None, build_rule((1, 12, 12))), tmp_path
    )
    seen: list[tuple[int, ...]] = []
    finish = Network.finish_features

    def watch(network: Network, values: Tensor, at: int | None = None) -> Tensor:
        assert at == block
        seen.append(tuple(values.shape))
        return finish(network, values, at)

    monkeypatch.setattr(Network, "finish_features", watch)
    take_steps(loop, 1)
    batch, mixed = seen
    assert batch[0] == 16
    assert mixed[0] > 16, "a positive of each anchor with its three hardest negatives"
    assert mixed[1:] == batch[1:]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mixup": {"name": "metrix", "level": "feature", "block": 4}}, "'conv4' has 3 blocks, found 4"),
        ({"mixup": {"name": "metrix", "level": "feature", "block": 0}}, "counted from 1, found 0"),
        ({"mixup": {"name": "metrix", "block": 1}}, "block belongs to level 'feature', found level 'emb"),
        (
            {
                "data": {"kind": "embeddings", "path": "x.npz"},
                "model": {"backbone": "linear"},
                "mixup": {"name": "metrix", "level": "feature", "block": 1},
            },
            "backbone 'linear' is no chain of blocks: leave block out",
        ),
    ],
)
def test_blocks_that_cannot_be_mixed_are_refused(settings: dict[str, Any], sentence: str) -> None:
    config = build_config(Path("images")).model_dump(mode="json", exclude_unset=True)
    with pytest.raises(ConfigError, match=sentence):
        check_config(Config.model_validate({**config, **settings}))
