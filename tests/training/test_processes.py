"""Two processes with half the batch each train as one with the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from api_schemas.config import Config
from api_schemas.preprocessing import VectorInput
from decision.progress import silent
from encoder.preprocessing import Preprocessing
from training.data.items import Items, Splits
from training.loop import Loop
from training.network import build_network
from training.objective import Objective
from training.run import Run, train
from training.samplers import batches
from training.state import State

STEPS = 3


def config_for(folder: Path) -> Config:
    return Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(folder / "items.npz")},
            "model": {"backbone": "linear", "embedding_dim": 8},
            "loss": [
                "multi_similarity",
                {"name": "threshold_consistent_margin", "weight": 0.5},
                "proxy_anchor",
            ],
            "mixup": "metrix",
            "miner": "multi_similarity",
            "memory": {"name": "cross_batch", "size": 200},
            "sampler": {"batch_size": 128, "items_per_class": 4},
            "optimizer": {"name": "sgd", "lr": 0.05, "accumulate": 2},
            "schedule": {"epochs": 2, "steps_per_epoch": STEPS, "patience": None},
        }
    )


def write_items(folder: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 5)
    vectors = (random.normal(size=(60, 12))[labels] + 0.5 * random.normal(size=(300, 12))).astype(np.float32)
    np.savez(folder / "items.npz", embeddings=vectors, labels=labels)


def steps(folder: Path) -> dict[str, Tensor]:
    """Losses and weights of a few steps of the loop, in float64."""
    config = config_for(folder)
    with np.load(folder / "items.npz") as file:
        vectors, labels = file["embeddings"].astype(np.float64), file["labels"].astype(np.str_)
    items = Items(vectors, labels, np.arange(len(labels)).astype(np.str_))
    splits = Splits(items, None, None, Preprocessing(VectorInput(dim=12)))
    torch.manual_seed(0)
    network = build_network(config.model, splits.preprocessing).double()
    state = State(network, Objective(config, 60).double(), config.optimizer)
    state.progress.planned_steps = STEPS
    loop = Loop(config, splits, state, network, folder, "", torch.device("cpu"), silent, print)
    losses = []
    for rows in batches(loop.codes, config.sampler, STEPS, seed=0, epoch=0):
        losses.append(loop._step(rows))
        state.progress.step += 1
    found = {"losses": torch.tensor(losses, dtype=torch.float64)}
    named = (*network.named_parameters(), *state.objective.named_parameters())
    return found | {name: value.detach() for name, value in named}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(steps(Path(folder)), f"{folder}/{rank}.pt")
    said: list[str] = []
    train(config_for(Path(folder)), Path(folder) / "run", say=said.append)
    assert bool(said) == (rank == 0)
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over a file store is tested on Linux")
def test_two_processes_train_as_one_with_the_joined_batch(tmp_path: Path) -> None:
    write_items(tmp_path)
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=2, start_method="spawn")
    alone = steps(tmp_path)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-10, msg=name)
    together = Run.open(tmp_path / "run").embeddings("test")
    single = train(config_for(tmp_path), tmp_path / "single").embeddings("test")
    assert together is not None
    assert single is not None
    np.testing.assert_allclose(together.vectors, single.vectors, atol=1e-3)
