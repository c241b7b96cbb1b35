"""What is minimised: the configured losses over the pairs that the configured miner picked."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from api_schemas.config import Config
from api_schemas.errors import ConfigError
from training.losses import CombinedLoss
from training.losses import build as build_loss
from training.memory import build as build_memory
from training.miners import build as build_miner
from training.mixup import build as build_mixup


class Objective(nn.Module):
    """Called ``(embeddings, labels)``; the parameters of the losses (class vectors) are trained too.

    A mixup wraps the losses that have a generalised form; the others of a sum stay as they are.

    Attributes:
        level: where the mixup mixes, ``input``, ``feature`` or ``embedding``; None without one.

    Raises:
        ConfigError: an unknown loss, miner, mixup or memory, a parameter that one does not take, or a mixup
            that fits none of the losses.
    """

    def __init__(self, config: Config, n_classes: int) -> None:
        super().__init__()
        dimension = config.model.embedding_dim
        self.miner = build_miner(config.miner) if config.miner else None
        losses = [build_loss(spec, num_classes=n_classes, embedding_dim=dimension) for spec in config.loss]
        if config.mixup and all(loss.roles is None for loss in losses):
            names = ", ".join(spec.name for spec in config.loss)
            raise ConfigError(
                f"mixup: none of the losses ({names}) has a generalised form that can be mixed: leave mixup "
                "out, or add a loss that has one, e.g. multi_similarity."
            )
        self.level = config.mixup.parameters.get("level", "embedding") if config.mixup else None
        parts: list[nn.Module] = []
        for loss in losses:
            part = build_mixup(config.mixup, loss) if config.mixup and loss.roles else loss
            if config.memory:
                part = build_memory(config.memory, part, embedding_dim=dimension, miner=self.miner)
            parts.append(part)
        self.loss = CombinedLoss(parts, [spec.weight for spec in config.loss])

    def forward(self, embeddings: Tensor, labels: Tensor, done: float = 0.0, **mixing: Any) -> Tensor:
        """Float [n, d] unit rows, int [n] class codes and the share of the run that is done, to a scalar.

        ``mixing``: what a mixup at another level than ``embedding`` needs, see ``Metrix.forward``.
        """
        self.loss.done = done
        indices = self.miner(embeddings.detach(), labels) if self.miner else None
        total: Tensor = self.loss(embeddings, labels, indices, **mixing)
        return total
