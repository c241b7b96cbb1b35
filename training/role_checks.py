"""Checks of training queries against items, before any data is read."""

from __future__ import annotations

from api_schemas.config import Config
from common.errors import ConfigError
from training.losses import LOSSES
from training.losses.item_loss import ItemLoss
from training.models.backbones.onnx_network import ONNX


def check_roles_config(config: Config) -> None:
    """Raises ConfigError for what has no meaning where queries are compared with items alone."""
    column, model, sampler = config.data.role_column, config.model, config.sampler
    if column is None:
        if model.towers == 2:
            raise ConfigError(
                "model.towers: 2 are for queries and items: name the column that says which is which, "
                "data.role_column, or leave towers out."
            )
        return
    left_out = {
        "teacher": config.teacher,
        "mixup": config.mixup,
        "miner": config.miner,
        "memory": config.memory,
        "mining": config.mining,
        "model.sizes": model.sizes,
        "model.exits": model.exits,
        "optimizer.chunk": config.optimizer.chunk,
        "optimizer.accumulate": config.optimizer.accumulate > 1,
        "sampler.neighbours": sampler.neighbours,
        "loss.bad_pairs": any(spec.bad_pairs for spec in config.loss),
    }
    for key in (key for key, given in left_out.items() if given):
        raise ConfigError(
            f"{key}: does not go with data.role_column, by which items have roles: leave it out."
        )
    if sampler.name != "m_per_class":
        raise ConfigError(
            f"sampler.name: with data.role_column batches have queries and items of each class, found "
            f"'{sampler.name}': leave it out."
        )
    if sampler.items_per_class % 2:
        raise ConfigError(
            "sampler.items_per_class: half are queries and half items with data.role_column, found "
            f"{sampler.items_per_class}: set an even number, 2 where each query has one item."
        )
    for spec in config.loss:
        loss = LOSSES[spec.name]
        if not loss.takes_references or loss.needs_hierarchy or issubclass(loss, ItemLoss):
            raise ConfigError(
                f"loss: '{spec.name}' cannot compare queries with items alone, which data.role_column asks "
                "for: choose one of pairs, e.g. nt_xent or siglip."
            )
    if model.towers == 2 and model.backbone.startswith(ONNX):
        raise ConfigError(
            "model.towers: an exported encoder has one head: set towers to 1, or train two networks from "
            "their own weights, e.g. hf:NAME or static:FILE."
        )
    if config.data.hierarchy is not None:
        raise ConfigError("data.hierarchy: does not go with data.role_column: leave it out.")
