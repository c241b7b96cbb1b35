"""The optimiser of a run over the parameter groups of network and losses, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn, optim

from api_schemas.config import OptimizerConfig, ScheduleConfig
from training.losses import Loss
from training.models.trained_parts import compute_depths
from training.optim.adamp import AdamP
from training.optim.muon import Muon

LOWEST = 0.01  # of the top rate: a cosine that ends at zero wastes its last steps


def build_optimizer(network: nn.Module, objective: nn.Module, settings: OptimizerConfig) -> optim.Optimizer:
    """AdamW, AdamP, SGD or Muon; biases, norms and a loss's own parameters are not decayed.

    Muon moves no table of vectors by its orthogonalised momentum: rows that no item looked up would move too.
    """
    matrices = [value for value in network.parameters() if value.requires_grad and value.ndim > 1]
    others = [value for value in network.parameters() if value.requires_grad and value.ndim <= 1]
    losses = [part for part in objective.modules() if isinstance(part, Loss)]
    own = {id(value) for loss in losses for value in loss.parameters()}
    moved = {id(value) for value in matrices} - _find_tables(network) if settings.name == "muon" else set()
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
        *(
            {
                "params": [value for value in loss.parameters() if value.requires_grad],
                "lr": settings.lr * loss.lr_factor,
                "weight_decay": 0.0,
                "name": "loss",
                **({} if settings.name == "sgd" else {"eps": loss.adam_eps}),
            }
            for loss in losses
        ),
        {
            "params": [
                value for value in objective.parameters() if value.requires_grad and id(value) not in own
            ],
            "lr": settings.lr,
            "weight_decay": 0.0,
            "name": "loss",
        },
    ]
    if settings.layer_decay is not None:
        depths = compute_depths(network)
        groups = [part for group in groups for part in _split_by_depth(group, depths, settings.layer_decay)]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    if settings.name == "adamp":
        return AdamP(groups, lr=settings.lr)
    return (Muon if settings.name == "muon" else optim.AdamW)(groups, lr=settings.lr, fused=True)


def _split_by_depth(group: dict[str, Any], depths: Mapping[int, int], decay: float) -> list[dict[str, Any]]:
    """A group for each depth, its rate lowered by ``decay`` for every block between it and the head."""
    members: dict[int, list[nn.Parameter]] = {}
    for value in group["params"]:
        members.setdefault(depths.get(id(value), 0), []).append(value)
    return [
        {**group, "params": values, "lr": group["lr"] * decay**depth}
        for depth, values in sorted(members.items())
    ]


def _find_tables(network: nn.Module) -> set[int]:
    """Identities of the tables of vectors that are looked up by id."""
    parts = (nn.Embedding, nn.EmbeddingBag)
    return {id(part.weight) for part in network.modules() if isinstance(part, parts)}


def compute_lr_factor(step: int, total: int, schedule: ScheduleConfig) -> float:
    """Factor on the learning rate for a step (from 0) of a run of ``total`` steps.

    ``cosine``: linear warm-up, then half a cosine down. ``one_cycle`` (Smith 2018, arXiv 1803.09820): a
    cosine up over the first 30 %, then one down. ``constant``: warm-up only.
    """
    done = min(1.0, (step + 1) / max(1, total))
    warm = max(schedule.warmup, 0.3) if schedule.shape == "one_cycle" else schedule.warmup
    if done < warm:
        rise = done / warm
        return 0.5 - 0.5 * math.cos(math.pi * rise) if schedule.shape == "one_cycle" else rise
    if schedule.shape == "constant":
        return 1.0
    fall = (done - warm) / max(1e-12, 1 - warm)
    return LOWEST + (1 - LOWEST) * (0.5 + 0.5 * math.cos(math.pi * fall))
