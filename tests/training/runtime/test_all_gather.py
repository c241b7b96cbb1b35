"""The loss of the gathered batch: two processes and one give the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist

from api_schemas.yaml_config import NamedPart
from tests.training.losses.cases import DIMENSION, NAMES, batch, make
from training.losses import LOSSES
from training.objective.mixup import build_mixup
from training.runtime.all_gather import gather_batch

SIZES = (9, 6)  # batches of two sizes


def _build_cases() -> dict[str, nn.Module]:
    losses: dict[str, nn.Module] = {name: make(name) for name in NAMES}
    for name in NAMES:
        if LOSSES[name].roles:
            losses[f"metrix of {name}"] = build_mixup(NamedPart(name="metrix"), make(name))
    return losses


def _compute_gradients(loss: nn.Module, part: slice) -> tuple[Tensor, list[Tensor]]:
    """Of a small network's weight and of the loss's own parameters, on some rows of the shared batch."""
    torch.manual_seed(11)
    network = nn.Linear(DIMENSION, DIMENSION, bias=False).double()
    items, labels = batch(n=sum(SIZES))
    gathered, all_labels = gather_batch(network(items.detach()[part]), labels[part])
    torch.manual_seed(100)  # draws must be the same in all processes
    loss(gathered, all_labels).backward()
    assert network.weight.grad is not None
    return network.weight.grad, [value.grad for value in loss.parameters() if value.grad is not None]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", len(SIZES))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(SIZES))
    part = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    results: dict[str, Any] = {}
    for name, loss in _build_cases().items():
        weight, own = _compute_gradients(loss, part)
        for gradient in (weight, *own):
            dist.all_reduce(gradient)
            gradient /= len(SIZES)
        results[name] = {"weight": weight, **{str(i): value for i, value in enumerate(own)}}
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=len(SIZES), start_method="spawn")
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    for name, loss in _build_cases().items():
        weight, own = _compute_gradients(loss, slice(None))
        result = results[name]
        torch.testing.assert_close(result["weight"], weight, rtol=1e-6, atol=1e-12, msg=name)
        assert len(result) == 1 + len(own)
        for i, gradient in enumerate(own):
            torch.testing.assert_close(result[str(i)], gradient, rtol=1e-6, atol=1e-12, msg=name)


def test_in_one_process_it_is_the_batch_itself() -> None:
    items, labels = batch()
    gathered, all_labels = gather_batch(items, labels)
    assert gathered is items
    assert all_labels is labels
