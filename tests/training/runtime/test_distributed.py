"""Two processes with half the batch each train as one with the whole."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from api_schemas.config import Config, ModelConfig
from api_schemas.preprocessing import ImageInput, VectorInput
from common.array_types import RowIndices
from common.errors import InputError
from encoder.inputs import INPUT_KINDS
from tests.training.runs import Stop, assert_equal_bit_for_bit, build_loop, take_steps
from training.batches.batch_inputs import TrainingInputs
from training.data.items import Items, Splits
from training.loop.train import train
from training.run_folder.layout import CHECKPOINTS_FOLDER
from training.run_folder.run_folder import Run

STEPS = 3


def build_config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(folder / "items.npz")},
            "model": {"backbone": "linear", "embedding_dim": 8},
            "loss": [
                "multi_similarity",
                {"name": "threshold_consistent_margin", "weight": 0.5},
                "proxy_anchor",
                {"name": "sbcl", "weight": 0.1, "every": 2},
                {"name": "nd", "weight": 0.5},
                {"name": "isogclr", "weight": 0.1},
                {"name": "siglip", "weight": 0.1},
                {"name": "ckd", "weight": 0.1, "queue": 200},
                {"name": "prototype_relation", "weight": 0.1},
                {"name": "higher_order_compatibility", "weight": 0.1},
                {"name": "backward_compatible", "weight": 0.1},
            ],
            "teacher": {"vectors": str(folder / "teacher.npz")},
            "mixup": "metrix",
            "miner": "multi_similarity",
            "memory": {"name": "cross_batch", "size": 200},
            "sampler": {"batch_size": 128, "items_per_class": 4, "neighbours": 2, "neighbours_from": 0.0},
            "optimizer": {"name": "sgd", "lr": 0.05, "accumulate": 2, "loss_lr_factor": 10.0},
            "schedule": {"epochs": 2, "steps_per_epoch": STEPS, "patience": None},
        }
    )


def write_items(folder: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 5)
    vectors = (random.normal(size=(60, 12))[labels] + 0.5 * random.normal(size=(300, 12))).astype(np.float32)
    np.savez(folder / "items.npz", embeddings=vectors, labels=labels)
    np.savez(folder / "teacher.npz", embeddings=vectors[:, :8] + vectors[:, 4:], labels=labels)


class InFloat64(TrainingInputs):
    """Pixels as the network takes them, without the rounding to float32 that is done in earnest."""

    def __call__(self, rows: RowIndices, generator: torch.Generator) -> Tensor:
        return torch.from_numpy((self.items.inputs[rows] / 255 - 1) / 0.3)


def train_model(folder: Path, model: dict[str, Any]) -> dict[str, Tensor]:
    """Losses, weights and running statistics of a few steps of the loop, in float64."""
    config = build_config(folder).model_copy(update={"model": ModelConfig.model_validate(model)})
    if model["backbone"] == "linear":  # norms over a chunk would not be those over another one
        optimizer = config.optimizer.model_copy(update={"chunk": 10, "sam": 0.05})
        config = config.model_copy(update={"optimizer": optimizer})
    with np.load(folder / "items.npz") as file:
        vectors, labels = file["embeddings"].astype(np.float64), file["labels"].astype(np.str_)
    rule: VectorInput | ImageInput = VectorInput(dim=12)
    if model["backbone"] in ("conv4", "resnet"):
        rule = ImageInput(mode="L", height=12, width=12, mean=[1.0], std=[0.3])
        vectors = np.clip(128 + 40 * vectors[:, :, None] * vectors[:, None, :], 0, 255)[:, None]
    items = Items(vectors, labels, np.arange(len(labels)).astype(np.str_))
    with np.load(folder / "teacher.npz") as file:
        teacher = file["embeddings"].astype(np.float64)
    splits = Splits(items, None, None, INPUT_KINDS[rule.kind](rule), teacher)
    loop = build_loop(config, splits, folder, torch.float64)
    if loop.prepare.is_picture:
        loop.inputs = InFloat64(items, loop.prepare, config.data.augmentation)
    losses = take_steps(loop, STEPS)
    weights = {**loop.state.network.state_dict(), **loop.state.objective.state_dict()}
    return {"losses": torch.tensor(losses, dtype=torch.float64), **weights}


MODELS: dict[str, dict[str, Any]] = {
    "linear": {"backbone": "linear", "embedding_dim": 8},
    "mlp": {"backbone": "mlp", "hidden": [16], "embedding_dim": 8},
    "conv4": {"backbone": "conv4", "widths": [4, 8], "embedding_dim": 8},
    "resnet": {"backbone": "resnet", "widths": [4, 8], "blocks": [1, 1], "embedding_dim": 8},
}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for name, model in MODELS.items():
        torch.save(train_model(Path(folder), model), f"{folder}/{name}-{rank}.pt")
    messages: list[str] = []
    config = build_config(Path(folder))
    train(config, Path(folder) / "run", say=messages.append)
    assert bool(messages) == (rank == 0)
    with pytest.raises(InputError, match="SIGTERM after step 2" if rank == 0 else "another process after"):
        train(config, Path(folder) / "stopped", track=Stop(signal.SIGTERM, at=2))
    dist.barrier()  # the first process may still be writing its checkpoint
    apart = Path(shutil.copytree(Path(folder) / "stopped", Path(folder) / f"apart{rank}"))
    if rank == 1:  # as on a node that has a disk of its own
        shutil.rmtree(apart / CHECKPOINTS_FOLDER)
    with pytest.raises(
        InputError, match="from different states, the first from step 2 with the data"
    ) as refused:
        train(config, apart, resume=True)
    (Path(folder) / f"refused{rank}").write_text(str(refused.value))
    train(config, Path(folder) / "stopped", resume=True)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two processes."""
    if sys.platform != "linux":
        pytest.skip("gloo over a file store is tested on Linux")
    folder = tmp_path_factory.mktemp("processes")
    write_items(folder)
    multiprocessing.start_processes(_process, (str(folder),), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_with_half_the_batch_take_the_steps_of_one(folder: Path, name: str) -> None:
    alone = train_model(folder, MODELS[name])
    for rank in (0, 1):
        results = torch.load(folder / f"{name}-{rank}.pt", weights_only=True)
        assert results.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                results[key], value, rtol=1e-6, atol=1e-10, msg=f"{key} of rank {rank}"
            )


def test_a_run_of_two_processes_is_the_run_of_one(folder: Path) -> None:
    together = Run.open(folder / "run").load_embeddings("test")
    single = train(build_config(folder), folder / "single").load_embeddings("test")
    assert together is not None
    assert single is not None
    np.testing.assert_array_equal(together.ids, single.ids)
    np.testing.assert_allclose(together.vectors, single.vectors, atol=1e-3)


GUIDE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
TORCHRUN, ACCELERATE = re.findall(
    r"^((?:torchrun|accelerate launch) .*?) limen train", GUIDE.read_text(), re.MULTILINE
)


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param(TORCHRUN, id="torchrun"),
        pytest.param(ACCELERATE, id="accelerate", marks=pytest.mark.full),
    ],
)
def test_launchers_of_the_guide_train_as_one_process_does(folder: Path, tmp_path: Path, launch: str) -> None:
    build_config(folder).save(tmp_path / "c.yaml")
    command = [*launch.split(), "limen", "train", "c.yaml", "--out", "run"]
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Run in run.") == 1, "one process speaks"
    assert done.stderr.count("epoch   2 ") == 1
    together = Run.open(tmp_path / "run").load_embeddings("test")
    expected = Run.open(folder / "run").load_embeddings("test")
    assert together is not None
    assert expected is not None
    np.testing.assert_allclose(together.vectors, expected.vectors, atol=1e-5)


def test_both_launchers_are_in_the_guide() -> None:
    assert [launch.split()[0] for launch in (TORCHRUN, ACCELERATE)] == ["torchrun", "accelerate"]


def test_processes_that_go_on_from_different_states_are_refused_equally(folder: Path) -> None:
    messages = [(folder / f"refused{rank}").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "give all of them the same data, and an --out on a disk that they share" in messages[0]


def test_two_processes_stop_and_go_on_bit_for_bit(folder: Path) -> None:
    assert_equal_bit_for_bit(folder / "run", folder / "stopped")
