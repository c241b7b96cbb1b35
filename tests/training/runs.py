"""Data and its configuration, and small runs: compared, stopped and exported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch import distributed as dist

from api_schemas.config import Config
from api_schemas.data_config import DataConfig
from api_schemas.preprocessing import ImageInput, ImageMode, TableInput
from common.progress import silent
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from encoder.inputs.row_input import TablePreprocessing
from training.batches.batch_feed import BatchFeed
from training.batches.batch_inputs import count_forms
from training.batches.samplers import draw_batches
from training.data.items import Splits
from training.data.load_data import load_data
from training.export.onnx_export import export_encoder
from training.loop.checkpoint import find_latest_checkpoint, load_checkpoint
from training.loop.loop import Loop
from training.loop.train_state import TrainState
from training.models.network import build_network
from training.models.sync_batch_norm import synchronise_batch_norms
from training.objective.objective import Objective
from training.objective.training_classes import describe_classes
from training.run_folder.layout import CHECKPOINTS_FOLDER
from training.run_folder.run_folder import Run
from training.runtime.distributed import Processes

T = TypeVar("T")
MakeConfig = Callable[..., Config]
EVERYTHING = {"train": 1, "validation": 0, "test": 0}  # of a split


def make_data(path: Path, **settings: object) -> DataConfig:
    """The data section with that path; images unless the settings say another kind."""
    return DataConfig.model_validate({"path": str(path), **settings})


def load_made(path: Path, **settings: object) -> Splits:
    """The prepared parts of such data."""
    return load_data(make_data(path, **settings))


def write_table(path: Path, rows: int = 60) -> None:
    """A table of 10 classes with two columns of numbers, a day and a part."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 10
    pq.write_table(
        pa.table(
            {
                "label": labels,
                "a": labels + 0.1 * random.normal(size=rows),
                "b": 1000 + labels % 3,
                "day": np.arange(rows) // 10,
                "split": ["train" if label < 5 else "val" if label < 8 else "test" for label in labels],
            }
        ),
        path,
    )


def build_rule(shape: tuple[int, ...]) -> Preprocessing:
    """A rule for images of that shape, or for table rows of that length."""
    if len(shape) == 1:
        columns = [str(number) for number in range(shape[0])]
        return TablePreprocessing(TableInput(columns=columns, means=[0.0] * shape[0], stds=[1.0] * shape[0]))
    zeros, ones = [0.0] * shape[0], [1.0] * shape[0]
    mode: ImageMode = "L" if shape[0] == 1 else "RGB"
    return ImagePreprocessing(ImageInput(mode=mode, height=shape[1], width=shape[2], mean=zeros, std=ones))


def export_run(run: Run, folder: Path) -> float:
    """Export a run's encoder; the largest difference between ONNX Runtime and torch."""
    return export_encoder(run.load_network(), run.load_preprocessing(), folder, str(run.path))


def build_loop(config: Config, splits: Splits, folder: Path, dtype: torch.dtype = torch.float32) -> Loop:
    """The loop of a run on the CPU, before its first step; it measures nothing."""
    torch.manual_seed(config.seed)
    network = build_network(config.model, splits.preprocessing).to(dtype)
    if dist.is_initialized():
        synchronise_batch_norms(network)
    forms = count_forms(config.data.augmentation)
    classes = describe_classes(splits.train, config.data, forms, splits.teacher)
    objective = Objective(config, classes)
    objective = objective.to(dtype)
    state = TrainState(network.train(), objective, config.optimizer)
    processes = Processes(torch.device("cpu"))
    return Loop(config, splits, state, network, folder, "", processes, silent, print)


def take_steps(loop: Loop, count: int) -> list[float]:
    """So many steps of a run that ends with them; their losses."""
    progress = loop.state.progress
    progress.planned_steps = count
    plan = draw_batches(loop.inputs.codes, loop.config.sampler, count, seed=0, epoch=0)
    feed = BatchFeed(plan, 0, loop.config, loop.inputs, loop.processes)
    losses = []
    for _ in plan:
        losses.append(loop.take_step(feed))
        progress.add_step(losses[-1])
    return losses


def read_latest_tensors(run: Path) -> dict[str, Tensor]:
    """All tensors of a run's latest checkpoint."""
    latest = find_latest_checkpoint(run / CHECKPOINTS_FOLDER)
    assert latest is not None
    return load_checkpoint(latest).tensors


def assert_equal_bit_for_bit(run: Path, other: Path) -> None:
    """The latest checkpoints of two runs hold the same tensors."""
    first, second = read_latest_tensors(run), read_latest_tensors(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


class Stop:
    """A track that sends this process a signal when a step begins."""

    def __init__(self, number: signal.Signals, at: int) -> None:
        self.number, self.left = number, at

    def __call__(self, steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
        for step in steps:
            if name.startswith("epoch"):
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), self.number)
            yield step
