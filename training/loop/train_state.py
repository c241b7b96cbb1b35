"""Everything that changes while training, and nothing else: what a checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.config import OptimizerConfig
from training.batches.class_neighbours import Neighbours
from training.models.network import Network
from training.objective.objective import Objective
from training.optim.muon import Muon


@dataclass
class Progress:
    """Where a run stands. Batches and random draws follow from seed, epoch and step: none are stored.

    ``planned_steps`` are fewer where the time budget would otherwise cut the schedule short.
    ``seconds`` is the time spent training so far, over all resumptions.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    planned_steps: int = 0
    epoch_loss: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    @property
    def mean_loss(self) -> float:
        """Of the epoch so far."""
        return self.epoch_loss / max(1, self.step_in_epoch)

    @property
    def seconds_left(self) -> float:
        """Until the planned steps are done, at the pace so far."""
        return self.seconds / max(1, self.step) * (self.planned_steps - self.step)

    def finish_epoch(self) -> None:
        """Note the epoch's mean loss and begin the next one."""
        self.losses.append(self.mean_loss)
        self.epoch += 1
        self.epoch_loss, self.step_in_epoch = 0.0, 0

    def to_json(self) -> str:
        """As one line of JSON; floats keep every bit."""
        return json.dumps(asdict(self))

    def take(self, text: str) -> None:
        """Become what ``to_json`` wrote, where it was another process."""
        for key, value in json.loads(text).items():
            setattr(self, key, value)

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """The inverse of ``to_json``."""
        known = {part.name for part in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})


class State:
    """Network, objective, optimiser, averaged weights, nearest classes and progress of one run."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        settings: OptimizerConfig,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.network = network
        self.objective = objective
        self.settings = settings
        self.neighbours = neighbours
        self.optimizer = make_optimizer(network, objective, settings)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.average: dict[str, Tensor] | None = None
        if settings.ema is not None:
            self.average = {name: value.clone() for name, value in _floats(network)}
        self.progress = Progress()

    def update_average(self) -> None:
        """Move the averaged weights a step towards the current ones; a short memory at the start."""
        if self.average is None or self.settings.ema is None:
            return
        keep = min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))
        current = [value.detach() for _, value in _floats(self.network)]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - keep)

    def served_weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and export: averaged where averaging is on."""
        return {**self.network.state_dict(), **(self.average or {})}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names."""
        flat = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        flat |= {f"objective/{name}": value for name, value in self.objective.state_dict().items()}
        if self.neighbours:
            flat |= {f"neighbours/{name}": value for name, value in self.neighbours.state_dict().items()}
        flat |= {f"average/{name}": value for name, value in (self.average or {}).items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            flat |= {
                f"optimizer/{number}/{name}": value
                for name, value in moments.items()
                if isinstance(value, Tensor)
            }
        return {name: value.detach().cpu().clone().contiguous() for name, value in flat.items()}

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of ``tensors``; raises KeyError or RuntimeError when they belong to another network."""
        self.network.load_state_dict(_below("network/", flat))
        self.objective.load_state_dict(_below("objective/", flat))
        if self.neighbours:
            self.neighbours.load_state_dict(_below("neighbours/", flat))
        for name, value in (self.average or {}).items():
            value.copy_(flat[f"average/{name}"])
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for key, value in _below("optimizer/", flat).items():
            number, name = int(key.split("/")[0]), key.split("/")[1]
            like = parameters[number]
            # the fused optimiser walks memory in order: a moment must lie as its parameter does
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(number, {})[name] = laid_out
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def make_optimizer(
    network: nn.Module, objective: nn.Module, settings: OptimizerConfig
) -> torch.optim.Optimizer:
    """AdamW, SGD or Muon; biases, norms and a loss's own parameters are not decayed.

    Muon moves no table of vectors by its orthogonalised momentum: rows that no item looked up would move too.
    """
    matrices = [value for value in network.parameters() if value.requires_grad and value.ndim > 1]
    others = [value for value in network.parameters() if value.requires_grad and value.ndim <= 1]
    own = [value for value in objective.parameters() if value.requires_grad]
    moved = {id(value) for value in matrices} - _tables(network) if settings.name == "muon" else set()
    decayed = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    groups: list[dict[str, Any]] = [
        {
            **decayed,
            "params": [value for value in matrices if id(value) in moved],
            "lr": settings.matrix_lr,
            "name": "matrices",
            "orthogonal": True,
        },
        {**decayed, "params": [value for value in matrices if id(value) not in moved], "name": "weights"},
        {"params": others, "lr": settings.lr, "weight_decay": 0.0, "name": "biases and norms"},
        {"params": own, "lr": settings.lr * settings.loss_lr_factor, "weight_decay": 0.0, "name": "loss"},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    return (Muon if settings.name == "muon" else torch.optim.AdamW)(groups, lr=settings.lr, fused=True)


def _tables(network: nn.Module) -> set[int]:
    """Identities of the tables of vectors that are looked up by number."""
    parts = (nn.Embedding, nn.EmbeddingBag)
    return {id(part.weight) for part in network.modules() if isinstance(part, parts)}


def _floats(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in network.state_dict().items() if value.dtype.is_floating_point)


def _below(prefix: str, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
