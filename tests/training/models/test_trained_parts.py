"""What training changes: the head, the last blocks, low-rank changes, or all; and at which rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from api_schemas.config import Config, LoraConfig, ModelConfig, OptimizerConfig
from common.errors import ConfigError
from tests.training.runs import MakeConfig, build_rule
from training.loop.train import train
from training.models.head_start import start_from_components, start_from_whitening
from training.models.lora import add_lora, merge_lora
from training.models.network import Network, build_network
from training.models.trained_parts import compute_depths, select_trained_parts
from training.optim.optimizer import build_optimizer

CONV = {"backbone": "conv4", "widths": [4, 6, 8], "embedding_dim": 5}


def build(**model: object) -> tuple[Network, ModelConfig]:
    config = ModelConfig.model_validate({**CONV, **model})
    return build_network(config, build_rule((1, 16, 16))), config


@pytest.mark.parametrize(
    ("how", "frozen_blocks"),
    [
        ({"train": "all"}, 0),
        ({"train": "head"}, 3),
        ({"train": "last_n", "last_n": 1}, 2),
        ({"train": "last_n", "last_n": 3}, 0),
    ],
)
def test_blocks_from_the_output_are_trained(how: dict[str, object], frozen_blocks: int) -> None:
    network, config = build(**how)
    select_trained_parts(network, config)
    network.train()
    for number, block in enumerate(network.backbone.blocks):
        is_frozen = number < frozen_blocks
        assert all(weight.requires_grad is not is_frozen for weight in block.parameters())
        norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
        assert all(norm.training is not is_frozen for norm in norms), "frozen norms keep their statistics"
    assert all(weight.requires_grad for weight in network.head.parameters())


def test_rates_fall_block_by_block() -> None:
    network, _ = build()
    groups = build_optimizer(network, nn.Module(), OptimizerConfig(lr=1.0, layer_decay=0.5)).param_groups
    rate_of = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    for number, block in enumerate(network.backbone.blocks):
        assert {rate_of[id(weight)] for weight in block.parameters()} == {0.5 ** (3 - number)}
    assert {rate_of[id(weight)] for weight in network.head.parameters()} == {1.0}
    assert set(compute_depths(network).values()) == {1, 2, 3}


def test_merged_low_rank_changes_are_the_network_that_was_trained() -> None:
    torch.manual_seed(0)
    network, _ = build()
    network.eval()
    images = torch.rand(3, 1, 16, 16)
    before = network(images)
    names = list(network.state_dict())
    add_lora(network.backbone, LoraConfig(rank=2, alpha=4.0))
    torch.testing.assert_close(network(images), before, atol=1e-6, rtol=0)
    trained = [name for name, weight in network.backbone.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, weight in network.backbone.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    merged = merge_lora(network, network.state_dict())
    assert list(merged) == names
    other, _ = build()
    other.load_state_dict(merged)
    torch.testing.assert_close(other.eval()(images), network(images), atol=1e-5, rtol=1e-4)
    assert (network(images) - before).abs().max() > 1e-3


def test_components_keep_similarities() -> None:
    features = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32) + 2
    codes = np.arange(200) % 10
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    whole, part = nn.Linear(6, 6), nn.Linear(6, 3)
    start_from_components(whole, features, codes, 1.0)
    turned = nn.functional.normalize(whole(torch.from_numpy(features)), dim=1).detach().numpy()
    np.testing.assert_allclose(turned @ turned.T, unit @ unit.T, atol=1e-5)
    start_from_components(part, features, codes, 1.0)
    rows = unit @ part.weight.detach().numpy().T
    best = np.linalg.svd(unit, compute_uv=False)[:3]
    np.testing.assert_allclose((rows**2).sum(), (best**2).sum(), rtol=1e-5)


@pytest.mark.parametrize("shrinkage", [1.0, 10.0])
def test_whitening_is_the_formula_of_its_docstring(shrinkage: float) -> None:
    random = np.random.default_rng(0)
    codes = np.arange(300) % 10
    features = (random.normal(size=(10, 5)) * 3)[codes] + random.normal(size=(300, 5)) * [3, 1, 1, 0.1, 0.1]
    means = np.stack([features[codes == code].mean(0) for code in range(10)])
    within = np.cov((features - means[codes]).T, bias=True)
    values, axes = np.linalg.eigh(within + shrinkage * np.trace(within) / 5 * np.eye(5))
    expected = (features - features.mean(0)) @ (axes / np.sqrt(values) @ axes.T)
    head = nn.Linear(5, 7)
    start_from_whitening(head, features.astype(np.float32), codes, shrinkage)
    rows = head(torch.from_numpy(features.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, rtol=1e-3, atol=1e-3)
    assert not rows[:, 5:].any(), "there are no more directions than features"


def test_a_head_begins_where_it_says(small: MakeConfig, tmp_path: Path) -> None:
    model = {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 72, "head_start": "components"}
    still = {"optimizer": {"lr": 1e-12}, "schedule": {"epochs": 1, "steps_per_epoch": 1}}
    network = train(small(model=model, **still), tmp_path / "run").load_network()
    images = torch.rand(5, 1, 12, 12)
    with torch.inference_mode():
        features = nn.functional.normalize(network.pool(network.extract_features(images)), dim=1)
        embeddings = network(images)
    torch.testing.assert_close(embeddings @ embeddings.T, features @ features.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"trained": 0.5}, "trained was replaced: say train: head"),
        ({"last_n": 2}, "last_n, a number of blocks, belongs to train: last_n"),
        ({"train": "last_n"}, "and that needs it"),
        ({"lora": {"rank": 2}}, "lora belongs to train: lora, found train: all"),
        ({"head": "none", "head_start": "whitened"}, "is for a head, found head: none"),
        ({"head": "none", "train": "head"}, "leaves nothing to train"),
    ],
)
def test_keys_that_do_not_go_together_are_one_sentence(model: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate({**CONV, **model})


def test_more_blocks_than_there_are_and_unknown_layers_are_one_sentence(small: MakeConfig) -> None:
    network, config = build(train="last_n", last_n=4)
    with pytest.raises(ConfigError, match=r"model\.last_n: conv4 has 3 blocks, found 4"):
        select_trained_parts(network, config)
    with pytest.raises(ConfigError, match=r"model\.lora\.layers: no linear layer .* is called query"):
        add_lora(network.backbone, LoraConfig(layers=["query"]))
    too_long: Config = small(model={**CONV, "head": "none"})
    with pytest.raises(ConfigError, match=r"without a head keeps the features' 32 numbers, found 5"):
        build_network(too_long.model, build_rule((1, 16, 16)))
