"""The training objective: the configured losses over the pairs that the configured miner selects."""

from __future__ import annotations

from itertools import compress
from typing import Any

from torch import Tensor, nn

from api_schemas.class_corners import ClassCorners
from api_schemas.config import Config, LossConfig
from common.errors import ConfigError
from training.losses import (
    Lesson,
    Loss,
    TrainingClasses,
    Weight,
    WeightedSum,
    build_loss,
    start_from_class_means,
)
from training.objective.cross_batch_memory import build_memory
from training.objective.miners import build_miner
from training.objective.mixup import build_mixup


class Objective(nn.Module):
    """Called ``(embeddings, labels)``; the parameters of the losses (class vectors) are trained too.

    A mixup wraps the losses that have a generalised form; the others of a sum stay as they are.

    Args:
        classes: that are trained on; a number alone where no loss needs to know more of them.

    Attributes:
        level: where the mixup mixes, ``input``, ``feature`` or ``embedding``; None without one.
        block: of the backbone's chain, from 1, after which features are mixed; None at its end.

    Raises:
        ConfigError: an unknown loss, miner, mixup or memory, a parameter that one does not take, a mixup
            that fits none of the losses, or class means for a loss without class vectors.
    """

    def __init__(self, config: Config, classes: TrainingClasses | int) -> None:
        super().__init__()
        if isinstance(classes, int):
            classes = TrainingClasses.build_placeholder(classes)
        dimension = config.model.view_dim
        self.class_names = classes.names
        self.miner = build_miner(config.miner) if config.miner else None
        losses = [build_loss(spec, classes=classes, embedding_dim=dimension) for spec in config.loss]
        for loss, spec in zip(losses, config.loss, strict=True):
            given = config.optimizer.loss_lr_factor if spec.lr_factor is None else spec.lr_factor
            loss.lr_factor = loss.lr_factor if given is None else given
        if config.mixup and all(loss.roles is None for loss in losses):
            names = ", ".join(spec.name for spec in config.loss)
            raise ConfigError(
                f"mixup: none of the losses ({names}) has a generalised form that can be mixed: leave mixup "
                "out, or add a loss that has one, e.g. multi_similarity."
            )
        started = [spec.start_from_class_means for spec in config.loss]
        self.from_means = list(compress(losses, started))
        for loss in self.from_means:
            if loss.vectors is None:
                raise ConfigError(
                    f"loss ({loss.name}): start_from_class_means is for losses with one vector per class."
                )
        mixup = config.mixup.parameters if config.mixup else {}
        self.level = mixup.get("level", "embedding") if config.mixup else None
        block = mixup.get("block")
        self.block = block if isinstance(block, int) else None
        parts: list[nn.Module] = []
        for loss in losses:
            part = build_mixup(config.mixup, loss) if config.mixup and loss.roles else loss
            if config.memory and not (config.teacher and loss.follows_teacher):
                part = build_memory(config.memory, part, embedding_dim=dimension, miner=self.miner)
            parts.append(part)
        self.loss = WeightedSum(parts, [_build_weight(spec) for spec in config.loss])

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        done: float = 0.0,
        lesson: Lesson | None = None,
        **mixing: Any,
    ) -> Tensor:
        """Float [n, d] unit rows, int [n] class codes and the fraction of the run that is done, to a scalar.

        Args:
            lesson: for the losses that follow a teacher, where there is one.
            mixing: what a mixup at another level than ``embedding`` needs, see ``Metrix.forward``.
        """
        indices = self.miner(embeddings.detach(), labels) if self.miner else None
        total: Tensor = self.loss(embeddings, labels, indices, done, lesson, **mixing)
        return total

    def end_step(self, lr_factor: float = 1.0) -> None:
        """After a step of the optimizer: losses that update their own vectors do so, on the schedule."""
        for loss in self._list_losses():
            loss.end_step(lr_factor)

    def describe_classes(self) -> list[str]:
        """What the losses make of the training classes, a sentence each."""
        sentences = [loss.describe_classes(self.class_names) for loss in self._list_losses()]
        return [sentence for sentence in sentences if sentence]

    def get_class_corners(self) -> ClassCorners | None:
        """Which fixed class vector belongs to which class; None where all are learned."""
        corners = (loss.class_corners for loss in self._list_losses())
        return next((found for found in corners if found is not None), None)

    def collect_figures(self) -> dict[str, float]:
        """Figures of the losses' own state, for the log of the epochs."""
        return {name: value for loss in self._list_losses() for name, value in loss.collect_figures().items()}

    def _list_losses(self) -> list[Loss]:
        """Those in the sum, without what wraps them; a loss within a memory is one of them."""
        return [part for part in self.modules() if isinstance(part, Loss)]

    def start_class_vectors(self, embeddings: Tensor, labels: Tensor) -> None:
        """Set the class vectors that should start from the class means: float [n, d] and int [n]."""
        for loss in self.from_means:
            start_from_class_means(loss, embeddings, labels)


def _build_weight(spec: LossConfig) -> float | Weight:
    return spec.weight if isinstance(spec.weight, float) else Weight(**spec.weight.model_dump())
