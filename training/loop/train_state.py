"""The state of a run: everything that changes while training; what a checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.config import OptimizerConfig
from training.batches.class_neighbours import ClassNeighbours
from training.batches.mined_batches import MinedTriplets
from training.loop.item_margins import ItemMargins
from training.losses import Loss
from training.models.lora import merge_lora
from training.models.network import Network
from training.objective.objective import Objective
from training.optim.optimizer import build_optimizer


@dataclass
class Progress:
    """Position of a run in its schedule.

    Batches and random draws follow from seed, epoch and step: none are stored. ``planned_steps`` are fewer
    where the time budget would otherwise cut the schedule short. ``seconds`` is the time spent training
    so far, over all resumptions.
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

    def add_step(self, loss: float) -> None:
        """Count a step and its loss."""
        self.epoch_loss += loss
        self.step += 1
        self.step_in_epoch += 1

    def finish_epoch(self) -> None:
        """Note the epoch's mean loss and begin the next one."""
        self.losses.append(self.mean_loss)
        self.epoch += 1
        self.epoch_loss, self.step_in_epoch = 0.0, 0

    def to_json(self) -> str:
        """As one line of JSON; floats keep every bit."""
        return json.dumps(asdict(self))

    def update_from_json(self, text: str) -> None:
        """Become what ``to_json`` wrote, where it was another process."""
        for key, value in json.loads(text).items():
            setattr(self, key, value)

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """The inverse of ``to_json``."""
        known = {part.name for part in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})


class TrainState:
    """Network, objective, optimiser, averaged weights, nearest classes, margins and progress of one run."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        settings: OptimizerConfig,
        neighbours: ClassNeighbours | None = None,
        mined: MinedTriplets | None = None,
        margins: ItemMargins | None = None,
    ) -> None:
        self.network = network
        self.objective = objective
        self.settings = settings
        self.neighbours = neighbours
        self.mined = mined
        self.margins = margins
        self.optimizer = build_optimizer(network, objective, settings)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.average: dict[str, Tensor] | None = None
        if settings.ema is not None:
            self.average = {name: value.clone() for name, value in _iterate_floats(network)}
        self.progress = Progress()

    def update_average(self) -> None:
        """Move the averaged weights a step towards the current ones; a short memory at the start."""
        if self.average is None or self.settings.ema is None:
            return
        keep = min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))
        current = [value.detach() for _, value in _iterate_floats(self.network)]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - keep)

    def collect_served_weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and export: averaged where averaging is on, low-rank changes merged."""
        return merge_lora(self.network, {**self.network.state_dict(), **(self.average or {})})

    def collect_tensors(self) -> dict[str, Tensor]:
        """All tensors under flat names."""
        flat = {
            f"{prefix}/{name}": value
            for prefix, module in self._get_modules().items()
            for name, value in module.state_dict().items()
        }
        flat |= {f"average/{name}": value for name, value in (self.average or {}).items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            flat |= {
                f"optimizer/{number}/{name}": value
                for name, value in moments.items()
                if isinstance(value, Tensor)
            }
        return {name: value.detach().cpu().clone().contiguous() for name, value in flat.items()}

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of ``collect_tensors``; KeyError or RuntimeError for those of another network."""
        for prefix, module in self._get_modules().items():
            tensors = _select_prefixed(f"{prefix}/", flat)
            if tensors or prefix != "margins":  # checkpoints of earlier versions have none
                module.load_state_dict(tensors)
        for name, value in (self.average or {}).items():
            value.copy_(flat[f"average/{name}"])
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for key, value in _select_prefixed("optimizer/", flat).items():
            number, name = int(key.split("/")[0]), key.split("/")[1]
            like = parameters[number]
            # the fused optimiser walks memory in order: a moment must lie as its parameter does
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            moments.setdefault(number, {})[name] = laid_out
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def collect_class_shards(self) -> dict[str, tuple[int, Tensor]]:
        """Tensors that are split over processes by class, each with the class of its first row."""
        return {
            f"objective/{name}.{key}": (loss.first, value)
            for name, loss in self.objective.named_modules()
            if isinstance(loss, Loss)
            for key, value in loss.class_shard.items()
        }

    def _get_modules(self) -> dict[str, nn.Module]:
        """The modules of a run under the prefix of their tensors' names."""
        modules: dict[str, nn.Module] = {"network": self.network, "objective": self.objective}
        further: dict[str, nn.Module | None] = {
            "neighbours": self.neighbours,
            "mined": self.mined,
            "margins": self.margins,
        }
        return modules | {prefix: module for prefix, module in further.items() if module is not None}


def _iterate_floats(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in network.state_dict().items() if value.dtype.is_floating_point)


def _select_prefixed(prefix: str, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
