"""Configurations that cannot work, refused in one sentence before any data is read."""

from __future__ import annotations

import inspect

import numpy as np
import torch

from api_schemas.config import AugmentationConfig, Config, DataConfig, ModelConfig, SamplerConfig
from api_schemas.preprocessing import ImageInput, VectorInput
from common.array_types import RowIndices, Texts
from common.errors import ConfigError
from encoder.preprocessing import Preprocessing
from training.losses import LOSSES, Loss
from training.models.backbones import HUBS, backbone_named
from training.models.backbones.hub import package_of
from training.models.backbones.types import flat_size
from training.models.network import build_network, refuse_other_inputs
from training.objective.objective import Objective
from training.registry import check_parameters

FROM_THE_DATA = ("input_shape", "buckets", "source")  # parameters of a backbone that nobody sets
GROUPED = ("m_per_class", "episodic")  # samplers whose batches hold items_per_class of each class


def refuse_impossible(config: Config) -> None:
    """Check every name and parameter, and that the sampler gives the losses what they learn from.

    Raises:
        ConfigError: an unknown backbone, loss, miner, mixup or memory, a parameter or value that one does
            not take, a mixup that fits no loss or cannot mix the inputs, augmentation of what is no image,
            nothing to train, or batches in which a loss that compares items never finds two of one class or
            two classes.
    """
    _check_backbone(config.model, config.data)
    if config.data.augmentation != AugmentationConfig() and config.data.kind not in ("images", "builtin"):
        raise ConfigError(
            f"data.augmentation: is for images, data.kind is '{config.data.kind}': leave it out."
        )
    objective = Objective(config, _enough_classes(config))
    if objective.level == "input" and config.data.kind == "text":
        raise ConfigError(
            "mixup.level: a text's input are the numbers of its n-grams, which cannot be mixed: set "
            "'feature' or 'embedding'."
        )
    if config.model.backbone == "identity" and not any(True for _ in objective.parameters()):
        raise ConfigError(
            "model.backbone: 'identity' with a loss that has no class vectors leaves nothing to train: "
            "choose linear, or look at the vectors as they are with `limen evaluate FILE`."
        )
    _check_sampler(config)


def refuse_oversized(config: Config, labels: Texts, images: int = 1) -> None:
    """Check the sampler against the training labels; what the defaults ask of small data is always fine.

    Args:
        labels: text [n], of the training items.
        images: how many inputs each item gives, see ``training.inputs.forms_of``.

    Raises:
        ConfigError: a batch larger than the training part, more items of a class than any class has, or
            more pieces than the batch that such small data gives can be cut into.
    """
    sampler, default = config.sampler, SamplerConfig()
    if sampler.batch_size > max(len(labels) * images, default.batch_size):
        raise ConfigError(
            f"sampler.batch_size: {sampler.batch_size} items in a batch, but training has {len(labels)}"
            f"{f' in {images} turns' if images > 1 else ''}: set at most {len(labels) * images}."
        )
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if sampler.name in GROUPED and sampler.items_per_class > max(largest, default.items_per_class):
        raise ConfigError(
            f"sampler.items_per_class: {sampler.items_per_class}, but the largest training class has "
            f"{largest} items: set at most {largest}."
        )
    _check_pieces(config, min(sampler.batch_size, len(labels) * images))


def few_positives(config: Config, codes: RowIndices) -> str | None:
    """A sentence when a random batch seldom holds two items of one class, though a loss lives on those.

    Args:
        codes: int [n], the class of each training item.
    """
    comparing, sampler = _comparing(config), config.sampler
    if sampler.name in GROUPED or config.memory or not comparing:
        return None
    counts = np.bincount(codes).astype(np.float64)
    counts = counts[counts > 0]
    n, size = len(codes), min(sampler.batch_size, len(codes)) / config.optimizer.accumulate
    if sampler.name == "shuffled":
        chance = (counts * (counts - 1)).sum() / max(1, n * (n - 1))
    else:
        chance = 1 / len(counts)
    others = (size - 1) * chance
    if others >= 1:
        return None
    return (
        f"Warning: with sampler '{sampler.name}' an item meets {others:.2g} others of its class in a batch "
        f"on average, and {' and '.join(comparing)} learns from those: use sampler 'm_per_class' or a larger "
        "sampler.batch_size."
    )


def compares_items(loss: type[Loss]) -> bool:
    """Whether a loss learns from items of one class in the same batch; others have vectors of the classes."""
    return loss.takes_references or "num_classes" not in inspect.signature(loss).parameters


def _comparing(config: Config) -> list[str]:
    return [spec.name for spec in config.loss if compares_items(LOSSES[spec.name])]


def _check_sampler(config: Config) -> None:
    comparing, sampler = _comparing(config), config.sampler
    _check_shots(config)
    if comparing and not config.memory and sampler.name in GROUPED and sampler.items_per_class == 1:
        raise ConfigError(
            f"sampler.items_per_class: loss '{comparing[0]}' compares items of the same batch, and with 1 no "
            "two of them are of one class: set at least 2, or choose a loss with class vectors, e.g. "
            "proxy_anchor."
        )
    _check_pieces(config, sampler.batch_size)


def _check_pieces(config: Config, batch: int) -> None:
    """What is computed at once of a batch of that many items must hold what the losses compare."""
    pieces, sampler, comparing = config.optimizer.accumulate, config.sampler, _comparing(config)
    piece = batch // pieces
    if pieces > 1 and piece < 2:  # batch normalisation wants two as well
        raise ConfigError(
            f"optimizer.accumulate: {batch} items in {pieces} pieces are computed one by one: set accumulate "
            f"to at most {max(1, batch // 2)}, half of the batch."
        )
    alike = min(sampler.items_per_class, batch // 2)
    if pieces > 1 and comparing and not config.memory and sampler.name in GROUPED and piece <= alike:
        raise ConfigError(
            f"optimizer.accumulate: loss '{comparing[0]}' compares items of the same batch, but a piece of "
            f"{piece} items holds hardly more than one class of {alike}: lower accumulate or "
            "sampler.items_per_class."
        )


def _check_shots(config: Config) -> None:
    """A support of ``shots`` items must leave queries, and all of it must be in the same piece."""
    sampler = config.sampler
    for spec in config.loss:
        shots = spec.parameters.get("shots")
        if shots is None:
            continue
        if sampler.name != "episodic":
            raise ConfigError(f"loss ({spec.name}): shots part an episode: set sampler.name to 'episodic'.")
        if isinstance(shots, int) and shots >= sampler.items_per_class:
            raise ConfigError(
                f"loss ({spec.name}): {shots} shots of {sampler.items_per_class} items of a class leave no "
                "query: raise sampler.items_per_class."
            )
        if config.optimizer.accumulate > 1:
            raise ConfigError(
                f"optimizer.accumulate: loss '{spec.name}' with shots needs the whole episode: set it to 1."
            )


def _check_backbone(model: ModelConfig, data: DataConfig) -> None:
    """Check its name and parameters, and build it without memory for inputs such as the data will give."""
    stand_in = _stand_in(data)
    kind = "tokens" if stand_in is None else stand_in.input.kind
    make = backbone_named(model.backbone, kind)
    check_parameters(make, model.parameters, f"model ({model.backbone})", FROM_THE_DATA)
    refuse_other_inputs(model.backbone, kind)
    if model.backbone.startswith(HUBS):
        package_of(model.backbone)
    elif stand_in is not None:
        if model.backbone == "identity":  # the data's own length is the embedding's
            model = model.model_copy(update={"embedding_dim": flat_size(stand_in.shape)})
        with torch.device("meta"):
            build_network(model, stand_in)


def _stand_in(data: DataConfig) -> Preprocessing | None:
    """Preprocessing of inputs of the data's kind and of any size; None for tokens, whose number it says."""
    if data.kind in ("images", "builtin"):
        side = data.image_size or 28
        return Preprocessing(ImageInput(mode="L", height=side, width=side, mean=[0.0], std=[1.0]))
    if data.kind != "text":
        return Preprocessing(VectorInput(dim=8))
    return None if data.text.tokenizer else Preprocessing(data.text.as_input())


def _enough_classes(config: Config) -> int:
    """A number of classes that fits what the losses were told about them; the data says it later."""
    trees = [spec.parameters.get("ancestors") for spec in config.loss]
    return max([2, *(len(tree) for tree in trees if isinstance(tree, list))])
