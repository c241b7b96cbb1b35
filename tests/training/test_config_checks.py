"""Every sampler with every loss: either the gradient is not zero, or one sentence says why it would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from api_schemas.config import Config
from common.errors import ConfigError, InputError
from tests.training.runs import MakeConfig
from training.batches.samplers import draw_batches
from training.config_checks import check_batches, check_config, compares_items, describe_few_positives
from training.loop.train import train
from training.losses import LOSSES
from training.objective.objective import Objective

NAMES = sorted(name for name, loss in LOSSES.items() if not (loss.takes_any_size or loss.needs_teacher))
CODES = np.repeat(np.arange(9), 6)
SAMPLERS: dict[str, dict[str, Any]] = {
    "one of each class": {"name": "m_per_class", "batch_size": 8, "items_per_class": 1},
    "pairs": {"name": "m_per_class", "batch_size": 16, "items_per_class": 2},
    "fours": {"name": "m_per_class", "batch_size": 16, "items_per_class": 4},
    "episodes": {"name": "episodic", "batch_size": 16, "items_per_class": 4},
    "balanced": {"name": "class_balanced", "batch_size": 16},
    "shuffled": {"name": "shuffled", "batch_size": 16},
}


def compute_gradients(config: Config) -> list[float]:
    """Per batch of an epoch, the largest entry of the gradient that reaches the embeddings."""
    torch.manual_seed(0)
    objective = Objective(config, 9)
    vectors = torch.nn.functional.normalize(torch.randn(len(CODES), config.model.embedding_dim))
    largest = []
    for number, rows in enumerate(draw_batches(CODES, config.sampler, 4, seed=0, epoch=0)):
        items = vectors[torch.from_numpy(rows)].requires_grad_()
        loss = objective(items, torch.from_numpy(CODES[rows]), number / 4)
        (gradient,) = torch.autograd.grad(loss, items)
        assert torch.isfinite(gradient).all()
        largest.append(float(gradient.abs().max()))
    return largest


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", NAMES)
def test_each_sampler_and_loss_train_or_are_refused(small: MakeConfig, name: str, sampler: str) -> None:
    config = small(loss=name, sampler=SAMPLERS[sampler])
    if compares_items(LOSSES[name]) and sampler == "one of each class":
        with pytest.raises(ConfigError, match=rf"items_per_class: loss '{name}' compares items.*at least 2"):
            check_config(config)
        return
    check_config(config)
    assert min(compute_gradients(config)) > 1e-4


@pytest.mark.parametrize(
    "name", [name for name in NAMES if compares_items(LOSSES[name]) and name != "interclr"]
)  # which has a memory of its own
def test_a_memory_makes_up_for_one_item_of_each_class(small: MakeConfig, name: str) -> None:
    memory = {"name": "cross_batch", "size": 40}
    config = small(loss=name, sampler=SAMPLERS["one of each class"], memory=memory)
    check_config(config)
    assert max(compute_gradients(config)[1:]) > 1e-4


@pytest.mark.parametrize("name", ["pnp", "ge2e", "angular_prototypical", "pamc", "icnn"])
def test_a_miner_is_refused_where_nothing_follows_it(small: MakeConfig, name: str) -> None:
    miner = {"name": "batch_hard"}
    with pytest.raises(ConfigError, match=f"miner: loss '{name}' compares each item with all others"):
        check_config(small(loss=name, miner=miner))
    config = small(loss=[name, "triplet"], miner=miner, sampler=SAMPLERS["fours"])
    check_config(config)
    assert min(compute_gradients(config)) > 1e-4


def test_a_teacher_that_is_not_there_is_refused_before_the_data_is_read(
    small: MakeConfig, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no.npz")
    with pytest.raises(ConfigError, match=r"teacher\.vectors: .*no\.npz is not a file: give an embeddings"):
        check_config(small(loss="ckd", teacher={"vectors": missing}))
    with pytest.raises(ConfigError, match=r"teacher\.bundle: .* has no preprocessing\.json: give a bundle"):
        check_config(small(loss="ckd", teacher={"bundle": str(tmp_path)}))


def test_a_margin_that_rises_by_steps_goes_with_a_sharpness_aware_step(small: MakeConfig) -> None:
    check_config(small(loss="nt_xent_am", optimizer={"sam": 0.05}))


def test_micro_batches_of_one_class_are_refused(small: MakeConfig) -> None:
    sampler = SAMPLERS["fours"]
    check_config(small(sampler=sampler, optimizer={"accumulate": 2}))
    check_config(small(sampler=sampler, optimizer={"accumulate": 4}, loss="proxy_anchor"))
    with pytest.raises(ConfigError, match="a micro-batch of 4 items holds hardly more than one class of 4"):
        check_config(small(sampler=sampler, optimizer={"accumulate": 4}))
    with pytest.raises(ConfigError, match="one by one: set accumulate to at most 8, half of the batch"):
        check_config(small(sampler=SAMPLERS["shuffled"], optimizer={"accumulate": 16}))


@pytest.mark.parametrize(
    ("accumulate", "loss", "sampler", "message"),
    [
        (
            14,
            "multi_similarity",
            "m_per_class",
            "a micro-batch of 3 items holds hardly more than one class of 4",
        ),
        (
            32,
            "proxy_anchor",
            "shuffled",
            "54 items in 32 micro-batches are computed one by one: set.* at most 27",
        ),
        (64, "proxy_anchor", "m_per_class", "54 items in 64 micro-batches are computed one by one"),
    ],
)
def test_micro_batches_of_the_smaller_batch_of_small_data_are_refused(
    small: MakeConfig, accumulate: int, loss: str, sampler: str, message: str
) -> None:
    config = small(loss=loss, sampler={"name": sampler}, optimizer={"accumulate": accumulate})
    check_config(config)  # 128 items could be cut so
    with pytest.raises(ConfigError, match=message):
        check_batches(config, CODES.astype(np.str_))
    check_batches(config.model_copy(update={"optimizer": small().optimizer}), CODES.astype(np.str_))


@pytest.mark.parametrize("name", ["proto_triplet", "icnn"])
def test_shots_want_whole_episodes_with_queries(small: MakeConfig, name: str) -> None:
    loss, episodes = {"name": name, "shots": 1}, SAMPLERS["episodes"]
    config = small(loss=loss, sampler=episodes)
    check_config(config)
    assert min(compute_gradients(config)) > 1e-4
    with pytest.raises(ConfigError, match=r"set sampler\.name to 'episodic'"):
        check_config(small(loss=loss, sampler=SAMPLERS["fours"]))
    with pytest.raises(ConfigError, match="4 shots of 4 items of a class leave no query"):
        check_config(small(loss={"name": name, "shots": 4}, sampler=episodes))
    with pytest.raises(ConfigError, match="needs the whole episode: set it to 1"):
        check_config(small(loss=loss, sampler=episodes, optimizer={"accumulate": 2}))
    with pytest.raises(ConfigError, match="shots must be at least 1"):
        check_config(small(loss={"name": name, "shots": 0}, sampler=episodes))


def test_texts_are_not_mixed_at_input_level(small: MakeConfig) -> None:
    sections = {"data": {"kind": "text", "path": "texts.csv"}, "model": {"backbone": "ngram"}}
    with pytest.raises(
        ConfigError, match=r"mixup\.level: .* ids of n-grams or tokens.*'feature' or 'embedding'"
    ):
        check_config(small(**sections, mixup={"name": "metrix", "level": "input"}))
    check_config(small(**sections, mixup={"name": "metrix", "level": "feature"}))


def test_a_network_with_nothing_to_train_is_refused(small: MakeConfig) -> None:
    identity = {"backbone": "identity", "embedding_dim": 144}
    with pytest.raises(ConfigError, match=r"leaves nothing to train: choose linear.*limen evaluate"):
        check_config(small(model=identity))
    check_config(small(model=identity, loss="proxy_anchor"))  # class vectors are


LINEAR = {"backbone": "linear", "embedding_dim": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {**LINEAR, "backbone": "conv4"}},
            "'conv4' does not take vector inputs: choose identity or linear or mlp",
        ),
        ({"model": {**LINEAR, "backbone": "ngram"}}, "'ngram' does not take vector inputs"),
        ({"model": {**LINEAR, "backbone": "timm:resnet18"}}, "'timm:resnet18' does not take vector inputs"),
        ({"model": {**LINEAR, "views": 2}}, r"model\.views: is for networks that look at images"),
        ({"model": {**LINEAR, "width": 8}}, "unknown parameter 'width': it has none"),
        ({"model": {"backbone": "mlp", "hidden": 8}}, r"model \(mlp\): hidden: .*found 8"),
        ({"model": {"backbone": "mlp", "hidden": [8, 0]}}, r"hidden must be whole numbers of at least 1, fo"),
        ({"model": {"backbone": "mlp", "dropout": 2.0}}, "dropout .* between 0 and 1"),
        ({"loss": {"name": "triplet", "margin": "a"}}, r"loss \(triplet\): margin: .* number.*found 'a'"),
        ({"loss": {"name": "arcface", "margin": None}}, r"loss \(arcface\): margin: .* number, found None"),
        ({"mixup": {"name": "metrix", "alpha": -1}}, r"mixup \(metrix\): alpha must be above 0, found -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_the_data_is_read(
    small: MakeConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = small(**{"data": {"kind": "embeddings", "path": "absent.npz"}, "model": LINEAR, **changes})
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"backbone": "conv4", "widths": [8, 8], "residuals": [1]}, "widths and residuals must be of equal"),
        ({"backbone": "resnet", "widths": []}, "widths must be whole numbers of at least 1"),
        ({"backbone": "ngram"}, "'ngram' does not take image inputs"),
    ],
)
def test_networks_that_cannot_be_are_refused_before_the_images_are_read(
    small: MakeConfig, tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(small(data={"path": "absent"}, model=model), tmp_path / "run")


def test_a_folder_that_cannot_be_is_refused_before_data_is_read(small: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is no folder that can be written in: give another --out"):
        train(small(data={"path": "absent"}), tmp_path / "file" / "run")


def test_augmentation_is_for_images(small: MakeConfig) -> None:
    data = {"kind": "embeddings", "path": "x.npz", "augmentation": {"rotations_as_classes": True}}
    with pytest.raises(ConfigError, match=r"data\.augmentation: is for images, data\.kind is 'embeddings'"):
        check_config(small(data=data, model={"backbone": "linear"}))


def test_a_hierarchy_is_asked_for_and_must_fit_the_kind_of_data(small: MakeConfig) -> None:
    check_config(small(loss="hierarchical_contrastive"))
    with pytest.raises(ConfigError, match=r"data\.hierarchy: .*_contrastive' learns from groups"):
        check_config(small(loss="hierarchical_contrastive", data={"path": "x"}))
    with pytest.raises(ValueError, match=r"'path' is for folders of files, kind is 'text': name columns"):
        small(data={"kind": "text", "path": "x.csv", "hierarchy": "path"})
    with pytest.raises(ValueError, match="needs at least one column"):
        small(data={"path": "x", "hierarchy": []})


def test_random_batches_of_many_classes_are_warned_of(small: MakeConfig, tmp_path: Path) -> None:
    many = np.repeat(np.arange(500), 4)
    for name in ("shuffled", "class_balanced"):
        sampler = {"name": name, "batch_size": 32}
        warning = describe_few_positives(small(sampler=sampler), many)
        assert f"sampler '{name}' an item meets 0.0" in str(warning)
        assert describe_few_positives(small(sampler=sampler), CODES) is None
        assert describe_few_positives(small(sampler=sampler, loss="proxy_anchor"), many) is None
        assert describe_few_positives(small(sampler=sampler, memory="cross_batch"), many) is None
    assert describe_few_positives(small(), many) is None
    messages: list[str] = []
    train(small(sampler={"name": "shuffled", "batch_size": 4}), tmp_path / "run", say=messages.append)
    assert any("meets 0.28 others of its class" in sentence for sentence in messages)
