"""Batches that are made ahead are those that are made when they are due."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from api_schemas.config import Config
from api_schemas.preprocessing import ImageInput
from common.array_types import RowIndices
from encoder.inputs.image_input import ImagePreprocessing
from training.batches.batch_feed import Batch, BatchFeed
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.data.items import Items
from training.runtime.distributed import Processes

CPU = torch.device("cpu")
PLAN: list[RowIndices] = [np.arange(start, start + 6) for start in (0, 6, 12)]


def build_feed(plan: list[RowIndices], first_step: int = 0) -> BatchFeed:
    config = Config.model_validate(
        {
            "data": {"path": "drawings", "augmentation": {"shift": 0.2, "rotations_as_classes": True}},
            "optimizer": {"accumulate": 2},
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8)).astype(np.uint8)
    labels = np.repeat(["a", "b"], 5)
    items = Items(pixels, labels, np.arange(10).astype(np.str_))
    prepare = DeviceInputs(
        ImagePreprocessing(ImageInput(mode="L", height=8, width=8, mean=[1.0], std=[0.3])), CPU
    )
    inputs = TrainingInputs(items, prepare, config.data.augmentation)
    return BatchFeed(plan, first_step, config, inputs, Processes(CPU))


def draw_batches(source: BatchFeed, count: int, ahead: bool) -> list[Batch]:
    batches = []
    for _ in range(count):
        batches.append(source.next())
        if ahead:
            source.prefetch()
    return batches


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
        assert (a.weight, a.own_seed, a.common_seed) == (
            b.weight,
            b.own_seed,
            b.common_seed,
        )


def test_made_ahead_or_when_due_a_batch_is_the_same() -> None:
    due = draw_batches(build_feed(PLAN), 6, ahead=False)
    assert_equal(due, draw_batches(build_feed(PLAN), 6, ahead=True))
    assert [batch.weight for batch in due] == [0.5] * 6
    assert not torch.equal(due[0].inputs, due[1].inputs)


def test_a_batch_follows_from_its_step_wherever_the_plan_begins() -> None:
    assert_equal(
        draw_batches(build_feed(PLAN), 6, ahead=True)[2:],
        draw_batches(build_feed(PLAN[1:], first_step=1), 4, ahead=False),
    )


def test_a_feed_ends_with_its_plan() -> None:
    source = build_feed(PLAN)
    draw_batches(source, 6, ahead=True)
    with pytest.raises(StopIteration):
        source.next()
