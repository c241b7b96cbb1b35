"""Checks of training without labels and of bad pairs, before any data is read."""

from __future__ import annotations

from api_schemas.config import Config
from api_schemas.data_config import AugmentationConfig
from common.errors import ConfigError
from encoder.inputs.preprocessing import Preprocessing
from training.losses import LOSSES
from training.losses.item_loss import ItemLoss

FORMS = {"rotations_as_classes", "mirrors_as_classes"}


def check_views(config: Config, placeholder: Preprocessing) -> None:
    """Raises ConfigError where two views of an item would be the same, or a loss needs more than items.

    Args:
        placeholder: preprocessing of such data.
    """
    if not config.sampler.ignores_labels:
        return
    grouped = [spec.name for spec in config.loss if LOSSES[spec.name].needs_hierarchy]
    if grouped:
        raise ConfigError(
            f"sampler.name: with 'two_views' every item is a class of its own, and loss '{grouped[0]}' "
            "learns from groups of classes: choose 'm_per_class', or another loss, e.g. nt_xent."
        )
    if config.mixup and config.mixup.parameters.get("level") in ("input", "feature"):
        raise ConfigError("mixup.level: with sampler 'two_views' only embeddings are mixed: leave it out.")
    if placeholder.has_pieces:
        return  # every view is a piece of its own
    if placeholder.is_picture:
        random = set(AugmentationConfig.model_fields) - FORMS
        if not any(getattr(config.data.augmentation, name) for name in random):
            raise ConfigError(
                "data.augmentation: sampler 'two_views' learns that two views of an image are the same, and "
                "without augmentation they are equal: set e.g. {crop: 0.5, colour: 0.4, rotate_degrees: 10}."
            )
        return
    if not _drops_out(config):
        raise ConfigError(
            f"sampler.name: 'two_views' needs views that differ, and of data.kind '{config.data.kind}' they "
            "differ by the network's dropout alone: set model.dropout, or choose 'm_per_class'."
        )


def check_items(config: Config) -> None:
    """Raises ConfigError where what is kept for every item would be kept of something else."""
    joined = [
        spec.name
        for spec in config.loss
        if issubclass(LOSSES[spec.name], ItemLoss) and not LOSSES[spec.name].takes_references
    ]
    if joined and config.memory is not None:
        raise ConfigError(f"memory: loss '{joined[0]}' has a memory of its own: leave one of them out.")
    if not any(spec.bad_pairs for spec in config.loss):
        return
    for section in ("memory", "mixup"):
        if getattr(config, section) is not None:
            raise ConfigError(
                f"{section}: bad_pairs counts the loss of every item of a batch once, which {section} adds "
                "others to: leave one of them out."
            )


def _drops_out(config: Config) -> bool:
    """Whether the network leaves out something at random while it trains."""
    model = config.model
    if model.train == "head":
        return False
    dropout = model.parameters.get("dropout")
    usual = model.backbone == "ngram" and dropout is None
    from_lora = model.lora is not None and model.lora.dropout > 0
    return model.backbone.startswith("hf:") or usual or from_lora or bool(dropout)
