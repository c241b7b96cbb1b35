"""Which part of a network training changes: the head, low-rank changes, the last blocks, or all of it."""

from __future__ import annotations

from torch import nn

from api_schemas.config import LoraConfig, ModelConfig
from common.errors import ConfigError
from training.models.lora import add_lora
from training.models.network import Network


def select_trained_parts(network: Network, model: ModelConfig) -> None:
    """Freeze what ``model.train`` leaves as it is, and add its low-rank changes.

    Raises:
        ConfigError: a backbone that cannot be trained in this way, or fewer blocks than are asked for.
    """
    if network.query_tower is not None:
        select_trained_parts(network.query_tower, model)
    backbone = network.backbone
    if not backbone.is_differentiable and model.train != "head":
        raise ConfigError(
            f"model.train: no gradients pass through {model.backbone}: set it to head, or train the network "
            "from its own weights (model.weights)."
        )
    if model.train == "all":
        return
    first = None
    if model.train == "last_n":
        blocks, count = backbone.blocks, model.last_n or 0
        if count > len(blocks):
            raise ConfigError(f"model.last_n: {model.backbone} has {len(blocks)} blocks, found {count}.")
        first = next(blocks[-count].parameters())
    for weight in backbone.parameters():
        if weight is first:
            break
        weight.requires_grad_(False)
    if model.train == "head":
        network.pooling.requires_grad_(False)
    if model.train == "lora":
        add_lora(backbone, model.lora or LoraConfig())


def compute_depths(network: nn.Module) -> dict[int, int]:
    """By the identity of each weight of the backbone: the blocks from it to the head, its own among them."""
    if not isinstance(network, Network):
        return {}
    depths: dict[int, int] = {}
    for tower in network.towers:
        starts = {id(next(block.parameters())) for block in tower.backbone.blocks}
        depth = len(starts) + 1
        for weight in tower.backbone.parameters():
            depth -= id(weight) in starts
            depths[id(weight)] = depth
    return depths
