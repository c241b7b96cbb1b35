"""What is minimised: the configured losses over the pairs that the configured miner picked."""

from __future__ import annotations

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

    Raises:
        ConfigError: an unknown loss, miner, mixup or memory, or a parameter that one does not take.
    """

    def __init__(self, config: Config, n_classes: int) -> None:
        super().__init__()
        dimension = config.model.embedding_dim
        self.miner = build_miner(config.miner) if config.miner else None
        if config.mixup and config.mixup.parameters.get("level", "embedding") != "embedding":
            raise ConfigError(
                "mixup.level: the trainer mixes embeddings alone: leave it out or set 'embedding'."
            )
        parts: list[nn.Module] = []
        for spec in config.loss:
            loss = build_loss(spec, num_classes=n_classes, embedding_dim=dimension)
            part = build_mixup(config.mixup, loss) if config.mixup else loss
            if config.memory:
                part = build_memory(config.memory, part, embedding_dim=dimension, miner=self.miner)
            parts.append(part)
        self.loss = CombinedLoss(parts, [spec.weight for spec in config.loss])

    def forward(self, embeddings: Tensor, labels: Tensor, done: float = 0.0) -> Tensor:
        """Float [n, d] unit rows, int [n] class codes and the share of the run that is done, to a scalar."""
        self.loss.done = done
        indices = self.miner(embeddings.detach(), labels) if self.miner else None
        total: Tensor = self.loss(embeddings, labels, indices)
        return total
