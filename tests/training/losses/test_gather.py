"""Two processes and one give the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist

from tests.training.losses.cases import DIMENSION, NAMES, Spec, batch, make
from training.losses import LOSSES
from training.objective.mixup import build_mixup
from training.runtime.all_gather import GatheredLoss

SIZES = (9, 6)  # batches of two sizes


def _cases() -> dict[str, nn.Module]:
    losses: dict[str, nn.Module] = {name: make(name) for name in NAMES}
    for name in NAMES:
        if LOSSES[name].roles:
            losses[f"metrix of {name}"] = build_mixup(Spec("metrix"), make(name))
    return losses


def _gradients(gathered: nn.Module, part: slice, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Of a small network's weight and of the loss's own parameters, on some rows of the shared batch."""
    torch.manual_seed(11)
    network = nn.Linear(DIMENSION, DIMENSION, bias=False).double()
    items, labels = batch(n=sum(SIZES))
    torch.manual_seed(seed)
    gathered(network(items.detach()[part]), labels[part]).backward()
    assert network.weight.grad is not None
    return network.weight.grad, [value.grad for value in gathered.parameters() if value.grad is not None]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", len(SIZES))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(SIZES))
    part = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    results: dict[str, Any] = {}
    for name, loss in _cases().items():
        # another seed in each process: the draws must be made common
        weight, own = _gradients(GatheredLoss(loss), part, seed=100 + rank)
        for gradient in (weight, *own):
            dist.all_reduce(gradient)
            gradient /= len(SIZES)
        results[name] = {"weight": weight, **{str(i): value for i, value in enumerate(own)}}
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


class _OneProcess(nn.Module):
    """The loss with the draws that the gathered loss makes common."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(int(torch.randint(2**31, (1,))))
        return self.loss(embeddings, labels)


def test_two_processes_have_the_gradients_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (str(tmp_path),), nprocs=len(SIZES), start_method="spawn")
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    for name, loss in _cases().items():
        weight, own = _gradients(_OneProcess(loss), slice(None), seed=100)
        found = results[name]
        torch.testing.assert_close(found["weight"], weight, rtol=1e-6, atol=1e-12, msg=name)
        assert len(found) == 1 + len(own)
        for i, gradient in enumerate(own):
            torch.testing.assert_close(found[str(i)], gradient, rtol=1e-6, atol=1e-12, msg=name)


def test_in_one_process_it_is_the_loss_itself() -> None:
    items, labels = batch()
    torch.testing.assert_close(GatheredLoss(make("circle"))(items, labels), make("circle")(items, labels))
