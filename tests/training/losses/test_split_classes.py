"""Partial FC over processes: each holds its range of the class vectors, together they are one loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist

from common.errors import InputError
from tests.training.losses.cases import DIMENSION, batch
from training.loop.class_shards import load_class_shards, save_class_shards
from training.losses import PartialFC, partial_fc, start_from_class_means
from training.runtime.all_gather import gather_batch

CLASSES, PROCESSES, STEPS = 11, 3, 3
CASES = {
    "all classes": {"sample_rate": 1.0},
    "sampled": {"sample_rate": 0.4},
    "one range without a class": {"sample_rate": 0.1, "base": "cosface"},
    "filtered": {"sample_rate": 1.0, "base": "none", "filter_above": 0.05},
}


def take_steps(case: str, rank: int) -> tuple[PartialFC, dict[str, Tensor]]:
    """The loss after some steps, and the losses and gradients of a network on the way."""
    torch.manual_seed(5)
    loss = PartialFC(CLASSES, DIMENSION, **CASES[case]).double().train()  # type: ignore[arg-type]
    network = nn.Linear(DIMENSION, DIMENSION, bias=False).double()
    part = slice(None)
    if dist.is_initialized():
        part = slice(15 * rank // PROCESSES, 15 * (rank + 1) // PROCESSES)
    results: dict[str, Tensor] = {}
    for step in range(STEPS):
        items, labels = batch(seed=step)
        labels = (labels * 2 + step) % (4 if case.startswith("one range") else CLASSES)
        gathered, all_labels = gather_batch(network(items.detach()[part]), labels[part])
        torch.manual_seed(100 + step)
        value = loss(gathered, all_labels)
        value.backward()
        assert network.weight.grad is not None
        if dist.is_initialized():
            dist.all_reduce(network.weight.grad)
            network.weight.grad /= PROCESSES
        results |= {f"loss {step}": value.detach(), f"gradient {step}": network.weight.grad.clone()}
        loss.end_step(0.5)
        network.zero_grad()
    items, labels = batch()
    start_from_class_means(loss, items[:4], labels[:4])
    return loss, results


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    partial_fc.BLOCK = 4
    for case in CASES:
        loss, results = take_steps(case, rank)
        shards = {name: (loss.first, value) for name, value in loss.class_shard.items()}
        (Path(folder) / case).mkdir(exist_ok=True)
        save_class_shards(Path(folder) / case / "step-00000003.safetensors", rank, shards)
        if rank == 1:
            torch.save(results, f"{folder}/{case}/results.pt")
        held = torch.tensor([len(loss.centers)])
        assert 0 < int(held) < CLASSES
        dist.all_reduce(held)
        assert int(held) == CLASSES, "each class vector lies in one process"
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    multiprocessing.start_processes(_process, (str(folder),), nprocs=PROCESSES, start_method="spawn")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_processes_that_split_the_classes_train_as_one(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_fc, "BLOCK", 4)
    alone, expected = take_steps(case, 0)
    results = torch.load(folder / case / "results.pt", weights_only=True)
    for name, value in expected.items():
        torch.testing.assert_close(results[name], value, rtol=1e-9, atol=1e-12, msg=name)
    read = PartialFC(CLASSES, DIMENSION).double()
    shards = {name: (0, value) for name, value in read.class_shard.items()}
    load_class_shards(folder / case / "step-00000003.safetensors", shards)
    torch.testing.assert_close(read.centers, alone.centers, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(read.velocity, alone.velocity, rtol=1e-9, atol=1e-12)


def test_vectors_of_a_process_that_are_not_there_are_an_error(folder: Path, tmp_path: Path) -> None:
    source = folder / "sampled" / "classes-00000003-00000.safetensors"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    rows = torch.zeros(CLASSES, DIMENSION)
    with pytest.raises(InputError, match="vectors of 8 classes are missing"):
        load_class_shards(tmp_path / "step-00000003.safetensors", {"centers": (0, rows)})
    (tmp_path / source.name).write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read as class vectors"):
        load_class_shards(tmp_path / "step-00000003.safetensors", {"centers": (0, rows)})
