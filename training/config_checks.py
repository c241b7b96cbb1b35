"""Checks that a configuration can work, before any data is read or decoded."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import torch

from api_schemas.config import Config, ModelConfig, SamplerConfig
from api_schemas.data_config import AugmentationConfig, DataConfig
from api_schemas.manifest import PREPROCESSING_FILE
from common.array_types import RowIndices, Texts
from common.errors import ConfigError
from encoder.inputs import load_preprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.batches.batch_inputs import count_forms
from training.data.kinds import open_kind
from training.data.teacher import check_teacher_kind
from training.losses import LOSSES, Loss
from training.models.backbones import find_prefix, select_backbone
from training.models.backbones.hub import import_hub, is_hub
from training.models.backbones.onnx_network import ONNX, check_encoder_folder
from training.models.network import Network, build_network
from training.models.trained_parts import select_trained_parts
from training.objective.objective import Objective
from training.registry import check_parameters
from training.role_checks import check_roles_config
from training.view_checks import check_items, check_views


def check_config(config: Config) -> None:
    """Check every name and parameter, and that the sampler gives the losses what they learn from.

    Raises:
        ConfigError: an unknown backbone, loss, miner, mixup or memory, a parameter or value that one does
            not take, a mixup that fits no loss or cannot mix the inputs, augmentation of what is no image,
            nothing to train, or batches in which a loss that compares items never finds two of one class or
            two classes.
    """
    placeholder = open_kind(config.data).build_placeholder()
    network = _check_backbone(config.model, placeholder)
    check_data_config(config.data, placeholder)
    if config.model.views > 2 and placeholder.is_picture:
        check_square(placeholder, f"model.views: {config.model.views} turn", "set 2, or 1")
    objective = Objective(config, 2)  # the data gives the real classes later
    check_views(config, placeholder)
    check_items(config)
    check_roles_config(config)
    ungrouped = [spec.name for spec in config.loss if LOSSES[spec.name].needs_hierarchy]
    if ungrouped and config.data.hierarchy is None:
        raise ConfigError(
            f"data.hierarchy: loss '{ungrouped[0]}' learns from groups of classes: set it to 'path' where "
            "class folders lie in folders, or to a list of columns, the broadest first."
        )
    if config.miner and not any(LOSSES[spec.name].takes_indices for spec in config.loss):
        raise ConfigError(
            f"miner: loss '{config.loss[0].name}' compares each item with all others of the batch, whatever "
            "a miner selects: leave miner out, or choose another loss, e.g. triplet."
        )
    _check_teacher(config)
    _check_several(config, objective)
    if objective.level == "input" and not placeholder.is_continuous:
        raise ConfigError(
            f"mixup.level: with data.kind '{config.data.kind}' the input are ids of n-grams or tokens, "
            "which cannot be mixed: set 'feature' or 'embedding'."
        )
    if objective.block is not None:
        _check_block(objective.block, network, config.model)
    if config.model.backbone == "identity" and not any(True for _ in objective.parameters()):
        raise ConfigError(
            "model.backbone: 'identity' with a loss that has no class vectors leaves nothing to train: "
            "choose linear, or look at the vectors as they are with `limen evaluate FILE`."
        )
    _check_sampler(config)


def check_data_config(data: DataConfig, placeholder: Preprocessing) -> None:
    """Raises ConfigError for augmentation of what is no image, or quarter turns of what is not square.

    Args:
        placeholder: preprocessing of such data.
    """
    if data.augmentation == AugmentationConfig():
        return
    if not placeholder.is_picture:
        raise ConfigError(f"data.augmentation: is for images, data.kind is '{data.kind}': leave it out.")
    if data.augmentation.rotations_as_classes:
        check_square(placeholder, "data.augmentation: rotations_as_classes turns", "set it to false")


def check_square(preprocessing: Preprocessing, what: str, advice: str) -> None:
    """Raises ConfigError for images that quarter turns give another shape."""
    height, width = preprocessing.shape[1:]
    if height != width:
        raise ConfigError(
            f"{what} images by 90 degrees, these are {height} x {width} pixels: {advice}, or make them "
            "square with data.image_size."
        )


def check_batches(config: Config, labels: Texts, forms: int = 1) -> None:
    """Check the sampler against the training labels; the defaults are fine for any data, however small.

    Args:
        labels: text [n], of the training items.
        forms: of each item, see ``training.batches.batch_inputs.count_forms``.

    Raises:
        ConfigError: a batch larger than the training part, more items of a class than any class has, or
            more micro-batches than the batch that such small data gives can be cut into.
    """
    sampler, default = config.sampler, SamplerConfig()
    n_rows = len(labels) * forms
    if sampler.batch_size > max(n_rows, default.batch_size):
        raise ConfigError(
            f"sampler.batch_size: {sampler.batch_size} items in a batch, but training has {len(labels)}"
            f"{f' in {forms} forms' if forms > 1 else ''}: set at most {n_rows}."
        )
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if sampler.name in ("m_per_class", "episodic") and sampler.items_per_class > max(
        largest, default.items_per_class
    ):
        raise ConfigError(
            f"sampler.items_per_class: {sampler.items_per_class}, but the largest training class has "
            f"{largest} items: set at most {largest}."
        )
    _check_micro_batches(config, min(sampler.batch_size, n_rows))


def describe_few_positives(config: Config, codes: RowIndices) -> str | None:
    """A warning when a random batch seldom holds two items of one class, though a loss learns from those.

    Args:
        codes: int [n], the class of each training item.
    """
    comparing, sampler = _list_comparing(config), config.sampler
    if sampler.is_grouped or config.memory or not comparing:
        return None
    counts = np.bincount(codes).astype(np.float64)
    counts = counts[counts > 0]
    n, size = len(codes), min(sampler.batch_size, len(codes)) / config.optimizer.accumulate
    if sampler.name == "shuffled":
        chance = (counts * (counts - 1)).sum() / max(1, n * (n - 1))
    else:
        chance = 1 / len(counts)
    positives = (size - 1) * chance
    if positives >= 1:
        return None
    return (
        f"Warning: with sampler '{sampler.name}' an item meets {positives:.2g} others of its class in a "
        f"batch on average, and {' and '.join(comparing)} learns from those: use sampler 'm_per_class' or a "
        "larger sampler.batch_size."
    )


def compares_items(loss: type[Loss]) -> bool:
    """Whether a loss learns from items of one class in the same batch; others have vectors of the classes."""
    return loss.takes_references or "num_classes" not in inspect.signature(loss).parameters


def _check_teacher(config: Config) -> None:
    """A teacher must be followed by some loss, see what the network sees, and know what the data is."""
    if config.teacher is None:
        alone = [spec.name for spec in config.loss if LOSSES[spec.name].needs_teacher]
        if alone:
            raise ConfigError(
                f"teacher: loss '{alone[0]}' follows a teacher: set teacher.vectors, a file with its "
                "embeddings of these items, or teacher.bundle, whose encoder is asked."
            )
        return
    if not any(LOSSES[spec.name].follows_teacher for spec in config.loss):
        following = ", ".join(name for name, loss in LOSSES.items() if loss.follows_teacher)
        raise ConfigError(f"teacher: none of the losses follows a teacher: leave it out, or add {following}.")
    if count_forms(config.data.augmentation) > 1:
        raise ConfigError(
            "teacher: it knows the items as they are, not rotated or mirrored as classes of their own: set "
            "data.augmentation.rotations_as_classes and mirrors_as_classes to false."
        )
    check_teacher_kind(config.teacher, config.data)
    if config.teacher.data is None:
        return
    if not any(LOSSES[spec.name].takes_unlabelled for spec in config.loss):
        able = ", ".join(name for name, loss in LOSSES.items() if loss.takes_unlabelled)
        raise ConfigError(
            f"teacher.data: none of the losses learns from items without labels: leave it out, or add {able}."
        )
    if config.data.kind == "builtin":
        raise ConfigError("teacher.data: data.kind 'builtin' has no files of its own kind: leave it out.")
    _check_mixing_leaves_alone(config, "teacher.data")


def _check_mixing_leaves_alone(config: Config, key: str) -> None:
    """Raises ConfigError where a mixup needs the inputs or features of the batch as they are."""
    level = config.mixup.parameters.get("level", "embedding") if config.mixup else "embedding"
    if level != "embedding":
        raise ConfigError(
            f"mixup.level: with {key} only embeddings are mixed, found '{level}': leave it out."
        )


def _check_several(config: Config, objective: Objective) -> None:
    """What several sizes, exits and a step in parts leave no room for."""
    keys = {
        "model.sizes": config.model.sizes,
        "model.exits": config.model.exits,
        "optimizer.chunk": config.optimizer.chunk,
    }
    given = [key for key, value in keys.items() if value]
    for key in given:
        _check_mixing_leaves_alone(config, key)
    sized = [
        spec.name
        for spec in config.loss
        if LOSSES[spec.name].follows_teacher and not LOSSES[spec.name].takes_any_size
    ]
    if config.model.sizes and config.teacher and sized:
        raise ConfigError(
            f"model.sizes: loss '{sized[0]}' compares whole embeddings with the teacher's: leave sizes out, "
            "or follow it by a loss for any size, e.g. ckd."
        )
    if config.optimizer.sam is None:
        return
    losses = [part for part in objective.modules() if isinstance(part, Loss) and part.vectors is not None]
    own = [loss.name for loss in losses if type(loss).end_step is not Loss.end_step]
    if own:
        raise ConfigError(
            f"optimizer.sam: loss '{own[0]}' moves its class vectors itself, once a step: leave sam out, or "
            "choose another loss."
        )


def _list_comparing(config: Config) -> list[str]:
    return [spec.name for spec in config.loss if compares_items(LOSSES[spec.name])]


def _check_sampler(config: Config) -> None:
    comparing, sampler = _list_comparing(config), config.sampler
    _check_shots(config)
    if comparing and not config.memory and sampler.is_grouped and sampler.group_size == 1:
        raise ConfigError(
            f"sampler.items_per_class: loss '{comparing[0]}' compares items of the same batch, and with 1 no "
            "two of them are of one class: set at least 2, or choose a loss with class vectors, e.g. "
            "proxy_anchor."
        )
    _check_micro_batches(config, sampler.batch_size)


def _check_micro_batches(config: Config, batch: int) -> None:
    """A micro-batch, of a batch of that many items, must hold what the losses compare."""
    count, sampler, comparing = config.optimizer.accumulate, config.sampler, _list_comparing(config)
    size = batch // count
    if count > 1 and size < 2:  # batch normalisation needs two as well
        raise ConfigError(
            f"optimizer.accumulate: {batch} items in {count} micro-batches are computed one by one: set "
            f"accumulate to at most {max(1, batch // 2)}, half of the batch."
        )
    per_class = min(sampler.group_size, batch // 2)
    if count > 1 and comparing and not config.memory and sampler.is_grouped and size <= per_class:
        raise ConfigError(
            f"optimizer.accumulate: loss '{comparing[0]}' compares items of the same batch, but a "
            f"micro-batch of {size} items holds hardly more than one class of {per_class}: lower accumulate "
            "or sampler.items_per_class."
        )


def _check_shots(config: Config) -> None:
    """A support of ``shots`` items must leave queries, and all of it must be in the same micro-batch."""
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


def _check_block(block: int, network: Network | None, model: ModelConfig) -> None:
    """Features can be mixed after a block that exists, and where training goes through it."""
    count = 0 if network is None else len(network.backbone.chain)
    if not count:
        raise ConfigError(
            f"mixup.block: backbone '{model.backbone}' is no chain of blocks: leave block out, which mixes "
            "what comes out of it."
        )
    if block > count:
        raise ConfigError(f"mixup.block: backbone '{model.backbone}' has {count} blocks, found {block}.")


def _check_backbone(model: ModelConfig, placeholder: Preprocessing) -> Network | None:
    """Check its name and parameters, and build it without memory where it is made here; None for others,
    which are not fetched yet."""
    set_by_trainer = ("input_shape", "source", *placeholder.backbone_arguments)
    make = select_backbone(model.backbone, placeholder)
    check_parameters(make, model.parameters, f"model ({model.backbone})", set_by_trainer)
    if model.backbone.startswith(ONNX):
        _check_encoder(model.backbone.removeprefix(ONNX), placeholder)
    if is_hub(model.backbone):
        import_hub(model.backbone)
    if find_prefix(model.backbone) is not None:
        return None
    changes: dict[str, object] = {"weights": None}
    if model.backbone == "identity":  # the data's own length is the embedding's
        changes["embedding_dim"] = math.prod(placeholder.shape)
    if model.head == "none":  # and the features' length, which may be the data's too
        changes["head"] = "linear"
    with torch.device("meta"):
        network = build_network(model.model_copy(update=changes), placeholder)
        if model.train != "lora":
            select_trained_parts(network, model)
    return network


def _check_encoder(source: str, placeholder: Preprocessing) -> None:
    """An encoder that exists must take what the data is."""
    check_encoder_folder(source)
    taken = load_preprocessing(Path(source) / PREPROCESSING_FILE).kind
    if taken != placeholder.kind:
        raise ConfigError(
            f"model.backbone: the encoder of {source} takes {taken}s, the data are {placeholder.kind}s: give "
            "one of the same kind."
        )
