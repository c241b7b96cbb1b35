"""Gradients in chunks, sharpness-aware steps, and items of the teacher's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from api_schemas.config import Config
from api_schemas.preprocessing import VectorInput
from common.errors import ConfigError
from encoder.inputs import INPUT_KINDS
from tests.training.runs import assert_equal_bit_for_bit, build_loop, take_steps
from training.batches.batch_feed import BatchFeed
from training.batches.samplers import draw_batches
from training.config_checks import check_config
from training.data.items import Items, Splits
from training.data.teacher import load_unlabelled
from training.loop.gradients import keep_buffers
from training.loop.train import train

MODEL = {"backbone": "linear", "embedding_dim": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradients")
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 6)
    vectors = random.normal(size=(20, 12))[labels] + 0.5 * random.normal(size=(120, 12))
    save = {"embeddings": vectors.astype(np.float32), "labels": labels}
    np.savez(folder / "items.npz", **save, ids=[f"item {k}" for k in range(120)])
    none = np.zeros(170, dtype=int)
    ids = [*(f"item {k}" for k in range(120)), *(f"more {k}" for k in range(50))]
    more = random.normal(size=(50, 12)).astype(np.float32)
    np.savez(folder / "more.npz", embeddings=more, labels=none[:50], ids=ids[120:])
    both = np.concatenate([vectors, more**3]).astype(np.float32)
    np.savez(folder / "teacher.npz", embeddings=both, labels=none, ids=ids)
    return folder


def build_config(folder: Path, **sections: Any) -> Config:
    given = {
        "data": {"kind": "embeddings", "path": str(folder / "items.npz")},
        "model": MODEL,
        "loss": ["multi_similarity", "normalized_softmax"],
        "sampler": {"batch_size": 48, "items_per_class": 3},
        "schedule": {"epochs": 1, "steps_per_epoch": 3, "patience": None, "shape": "constant", "warmup": 0.0},
    }
    return Config.model_validate({**given, **sections})


def load_splits(folder: Path) -> Splits:
    with np.load(folder / "items.npz") as file:
        items = Items(file["embeddings"].astype(np.float64), file["labels"].astype(np.str_), file["ids"])
    return Splits(items, None, None, INPUT_KINDS["vector"](VectorInput(dim=12)))


def train_steps(folder: Path, **optimizer: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of three steps in float64."""
    config = build_config(folder, optimizer={"name": "sgd", "lr": 0.1, **optimizer})
    loop = build_loop(config, load_splits(folder), folder, torch.float64)
    losses = take_steps(loop, 3)
    return losses, {**loop.state.network.state_dict(), **loop.state.objective.state_dict()}


@pytest.mark.parametrize("chunk", [2, 13, 47])
def test_chunks_have_the_gradient_of_the_whole_batch(folder: Path, chunk: int) -> None:
    whole, pieces = train_steps(folder), train_steps(folder, chunk=chunk)
    assert pieces[0] == pytest.approx(whole[0])
    for name, value in whole[1].items():
        torch.testing.assert_close(pieces[1][name], value, rtol=1e-9, atol=1e-11)


def test_accumulated_batches_have_another_gradient(folder: Path) -> None:
    assert train_steps(folder, accumulate=2)[0] != pytest.approx(train_steps(folder)[0])


def test_a_sharpness_aware_step_goes_by_the_gradient_on_the_slope(folder: Path) -> None:
    config = build_config(
        folder,
        loss=["normalized_softmax", {"name": "threshold_consistent_margin", "margin_plus": None}],
        optimizer={"name": "sgd", "lr": 0.1, "sam": 0.5, "clip_norm": None, "weight_decay": 0.0},
    )
    loops = [build_loop(config, load_splits(folder), folder, torch.float64) for _ in range(2)]
    take_steps(loops[0], 1)

    state, progress = loops[1].state, loops[1].state.progress
    progress.planned_steps = 1
    plan = draw_batches(loops[1].inputs.codes, config.sampler, 1, seed=0, epoch=0)
    feed = BatchFeed(plan, 0, config, loops[1].inputs, loops[1].processes)
    groups = state.optimizer.param_groups
    weights = [weight for group in groups for weight in group["params"]]
    batch, start = feed.next(), [weight.detach().clone() for weight in weights]
    with keep_buffers(state.network, state.objective):
        loops[1].gradients.add(batch, 0.0)
    first = [weight.grad.clone() for weight in weights if weight.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in first]).norm()
    with torch.no_grad():
        for weight, gradient in zip(weights, first, strict=True):
            weight.add_(0.5 * gradient / norm)
            weight.grad = None
    loops[1].gradients.add(batch, 0.0)
    with torch.no_grad():
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value)
    rates = [group["lr"] for group in groups for _ in group["params"]]
    # a first step of Nesterov's momentum is 1 + 0.9 of the gradient
    expected = [
        value - rate * 1.9 * weight.grad
        for value, rate, weight in zip(start, rates, weights, strict=True)
        if weight.grad is not None
    ]
    moved = [weight for group in loops[0].state.optimizer.param_groups for weight in group["params"]]
    for weight, value in zip(moved, expected, strict=True):
        torch.testing.assert_close(weight.detach(), value, rtol=1e-4, atol=1e-7)
    figures = [loop.state.objective.collect_figures() for loop in loops]
    assert figures[0] == pytest.approx(figures[1]), "margins follow the batch once"


def test_the_teacher_s_own_data_is_learned_from_without_labels(folder: Path, tmp_path: Path) -> None:
    teacher = {"vectors": str(folder / "teacher.npz"), "data": str(folder / "more.npz"), "data_per_batch": 20}
    config = build_config(folder, loss=["ckd", "prototype_relation", "triplet"], teacher=teacher)
    messages: list[str] = []
    run = train(config, tmp_path / "run", say=messages.append)
    assert "The teacher's own data: 50 items, without their labels." in messages
    alone = build_config(
        folder, loss=["ckd", "prototype_relation", "triplet"], teacher={**teacher, "data": None}
    )
    assert train(alone, tmp_path / "alone").load_embeddings("test") is not None
    with pytest.raises(AssertionError):
        assert_equal_bit_for_bit(run.path, tmp_path / "alone")
    again = train(config, tmp_path / "again")
    assert_equal_bit_for_bit(run.path, again.path)


def test_unlabelled_items_are_negatives_of_the_others(folder: Path) -> None:
    """CKD of the labelled items with those of the teacher's own data is CKD of both together."""
    teacher = {"vectors": str(folder / "teacher.npz"), "data": str(folder / "more.npz"), "data_per_batch": 20}
    config = build_config(folder, loss=["ckd"], teacher=teacher)
    assert config.teacher is not None
    splits = load_splits(folder)
    unlabelled = load_unlabelled(config.teacher, config.data, splits.preprocessing)
    assert len(unlabelled.items) == len(unlabelled.features) == 50
    with np.load(folder / "teacher.npz") as file:
        assert np.array_equal(unlabelled.features, file["embeddings"][120:].astype(np.float32))


def test_what_cannot_work_together_is_refused(folder: Path) -> None:
    teacher = {"vectors": str(folder / "teacher.npz"), "data": str(folder / "more.npz")}
    with pytest.raises(ConfigError, match=r"teacher\.data: none of the losses learns from items without"):
        check_config(build_config(folder, loss=["margin_mse"], teacher=teacher))
    with pytest.raises(ConfigError, match=r"optimizer\.sam: loss 'partial_fc' moves its class vectors"):
        check_config(build_config(folder, loss=["partial_fc"], optimizer={"sam": 0.05}))
    mixup = {"name": "metrix", "level": "feature"}
    for section in ({"optimizer": {"chunk": 8}}, {"model": {**MODEL, "sizes": [4]}}):
        with pytest.raises(ConfigError, match="only embeddings are mixed, found 'feature'"):
            check_config(build_config(folder, mixup=mixup, **section))
    vectors = {"vectors": str(folder / "teacher.npz")}
    with pytest.raises(ConfigError, match=r"model\.sizes: loss 'nd' compares whole embeddings"):
        check_config(build_config(folder, loss=["nd"], teacher=vectors, model={**MODEL, "sizes": [4]}))
